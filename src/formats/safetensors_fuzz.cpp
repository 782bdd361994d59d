// libFuzzer: whatever parse_safetensors accepts lies inside its file.
#include <cstdint>

#include "base/assert.h"
#include "formats/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const shoal::ByteView file(reinterpret_cast<const std::byte*>(data), size);
  const auto tensors = shoal::formats::parse_safetensors(file);
  if (!tensors) return 0;
  for (const auto& tensor : *tensors) {
    SHOAL_ASSERT(tensor.offset <= size && tensor.bytes <= size - tensor.offset);
  }
  return 0;
}
