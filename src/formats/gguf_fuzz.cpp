// libFuzzer: whatever parse_gguf accepts lies inside its file and can be read, and parts are checked without
// a crash. The input is one file; when another "GGUF" follows at a multiple of 32 bytes, it is the second
// part of a split model.
#include <cstdint>

#include "base/assert.h"
#include "formats/dequantise.h"
#include "formats/gguf_parts.h"

namespace shoal::formats {
namespace {

void read_first_rows(const GgufHeader& header, ByteView file) {
  for (const auto& tensor : header.tensors) {
    SHOAL_ASSERT(tensor.offset <= file.size() && tensor.bytes <= file.size() - tensor.offset);
    std::vector<float> row(tensor.shape.back());
    const auto row_bytes = tensor_bytes(tensor.type, 1, row.size());
    SHOAL_ASSERT(row_bytes && *row_bytes <= tensor.bytes);
    SHOAL_ASSERT(dequantise(tensor.type, file.subspan(tensor.offset, *row_bytes), row));
  }
}

size_t find_second_part(ByteView input) {
  for (size_t at = 32; at + 4 <= input.size(); at += 32) {
    if (as_text(input.subspan(at, 4)) == "GGUF") return at;
  }
  return input.size();
}

}  // namespace
}  // namespace shoal::formats

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace shoal::formats;
  const shoal::ByteView input(reinterpret_cast<const std::byte*>(data), size);
  const size_t second = find_second_part(input);
  std::vector<GgufHeader> parts;
  for (const auto file : {input.first(second), input.subspan(second)}) {
    if (file.empty()) continue;
    auto header = parse_gguf(file);
    if (!header) return 0;
    read_first_rows(*header, file);
    (void)list_parts("m-00001-of-00002.gguf", header->metadata);
    parts.push_back(*std::move(header));
  }
  (void)check_parts(parts);
  return 0;
}
