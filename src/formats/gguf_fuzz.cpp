// libFuzzer: whatever parse_gguf accepts lies inside its file.
#include <cstdint>

#include "base/assert.h"
#include "formats/gguf.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const shoal::ByteView file(reinterpret_cast<const std::byte*>(data), size);
  const auto header = shoal::formats::parse_gguf(file);
  if (!header) return 0;
  for (const auto& tensor : header->tensors) {
    SHOAL_ASSERT(tensor.offset <= size && tensor.bytes <= size - tensor.offset);
  }
  return 0;
}
