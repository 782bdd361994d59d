// libFuzzer: the tokenizer of a GGUF header, and text through whatever it makes of it.
#include <cstdint>
#include <span>

#include "base/assert.h"
#include "formats/gguf.h"
#include "text/fuzz_leaks.h"
#include "text/fuzzed_tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const shoal::ByteView file(reinterpret_cast<const std::byte*>(data), size);
  const auto header = shoal::formats::parse_gguf(file);
  if (!header) return 0;
  const auto tokenizer = shoal::text::Tokenizer::from_gguf(header->metadata);
  if (tokenizer) shoal::text::exercise(*tokenizer, "Hello, wörld  12345\n<s>x</s> 你好");
  return 0;
}
