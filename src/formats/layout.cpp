#include "formats/layout.h"

#include <algorithm>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/bytes.h"

namespace shoal::formats {

Result<> check_layout(std::vector<PlacedTensor> tensors) {
  std::ranges::sort(tensors, {}, &PlacedTensor::name);
  auto twin = std::ranges::adjacent_find(tensors, {}, &PlacedTensor::name);
  if (twin != tensors.end()) {
    return fail(ErrorCode::malformed, fmt::format("tensor {} appears twice", quote(twin->name)));
  }
  std::ranges::sort(tensors, {}, &PlacedTensor::offset);
  for (size_t i = 1; i < tensors.size(); ++i) {
    const auto& before = tensors[i - 1];
    const auto& tensor = tensors[i];
    if (tensor.offset < before.offset + before.bytes) {
      return fail(ErrorCode::malformed, fmt::format("tensors {} and {} overlap at byte {}",
                                                    quote(before.name), quote(tensor.name), tensor.offset));
    }
  }
  return {};
}

Result<uint64_t> count_values(std::span<const uint64_t> shape) {
  uint64_t values = 1;
  for (uint64_t dimension : shape) {
    if (dimension == 0)
      return fail(ErrorCode::malformed, fmt::format("shape [{}] has a zero", fmt::join(shape, ", ")));
    auto product = checked_multiply(values, dimension);
    if (!product) {
      return fail(ErrorCode::malformed,
                  fmt::format("shape [{}] has more values than 64 bits count", fmt::join(shape, ", ")));
    }
    values = *product;
  }
  return values;
}

std::string quote(std::string_view text) {
  constexpr size_t kShown = 80;
  std::string shown = "'";
  for (char c : text.substr(0, kShown)) shown += c >= ' ' && c <= '~' ? c : '?';
  shown += text.size() > kShown ? "…'" : "'";
  return shown;
}

std::unexpected<Error> fail_within(std::string_view where, Error error) {
  error.message = fmt::format("{}: {}", where, error.message);
  return std::unexpected(std::move(error));
}

}  // namespace shoal::formats
