// libFuzzer: whatever parse_safetensors accepts lies inside its file, and whatever join_parts makes of it can
// be read. The input is the text of config.json, a zero byte, and a safetensors file; without a zero byte
// just the file.
#include <algorithm>
#include <cstdint>

#include "base/assert.h"
#include "formats/join_parts.h"
#include "formats/shard_index.h"
#include "formats/tensor_rows.h"

namespace shoal::formats {
namespace {

void read_some_rows(const TensorInfo& tensor, ByteView file) {
  const auto bytes_of = [&](const TensorInfo& part) {
    SHOAL_ASSERT(part.offset <= file.size() && part.bytes <= file.size() - part.offset);
    return file.subspan(part.offset, part.bytes);
  };
  const TensorBytes bytes{bytes_of(tensor), tensor.scales ? bytes_of(*tensor.scales) : ByteView(),
                          tensor.biases ? bytes_of(*tensor.biases) : ByteView()};
  uint64_t rows = 1;
  for (size_t i = 0; i + 1 < tensor.shape.size(); ++i) rows *= tensor.shape[i];
  std::vector<float> row(tensor.shape.empty() ? 1 : tensor.shape.back());
  for (const uint64_t at : {uint64_t{0}, rows / 2, rows - 1})
    SHOAL_ASSERT(dequantise_rows(tensor, bytes, at, row));
}

void read_checkpoint(std::string_view config_text, ByteView file) {
  const auto config = parse_json_object(config_text, "config.json");
  if (!config) return;
  const auto quantisation = read_quantisation(*config);
  auto tensors = parse_safetensors(file);
  if (!quantisation || !tensors) return;
  std::vector<StoredTensor> stored;
  for (auto& tensor : *tensors) {
    SHOAL_ASSERT(tensor.offset <= file.size() && tensor.bytes <= file.size() - tensor.offset);
    stored.push_back({std::move(tensor), 0});
  }
  const auto joined = join_parts(std::move(stored), *quantisation);
  if (!joined) return;
  for (const auto& tensor : *joined) read_some_rows(tensor, file);
}

}  // namespace
}  // namespace shoal::formats

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const shoal::ByteView input(reinterpret_cast<const std::byte*>(data), size);
  const auto zero = static_cast<size_t>(std::ranges::find(input, std::byte{0}) - input.begin());
  // A file begins with the length of its header: most often it has its first zero byte before any brace.
  const bool has_config = zero < size && size > 0 && data[0] == '{';
  const std::string_view config = has_config ? shoal::as_text(input.first(zero)) : "{}";
  shoal::formats::read_checkpoint(config, has_config ? input.subspan(zero + 1) : input);
  (void)shoal::formats::parse_shard_index(config);
  return 0;
}
