// libFuzzer: a tokenizer.json, and text through whatever it makes of it. What follows a NUL is the text.
#include <algorithm>
#include <cstdint>
#include <string_view>

#include "text/fuzz_leaks.h"
#include "text/fuzzed_tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t end = std::min(input.find('\0'), size);
  const auto tokenizer = shoal::text::Tokenizer::from_json(input.substr(0, end));
  if (!tokenizer) return 0;
  shoal::text::exercise(*tokenizer, "Hello, wörld  12345\n<s>x</s> 你好");
  if (end < size) shoal::text::exercise(*tokenizer, input.substr(end + 1));
  return 0;
}
