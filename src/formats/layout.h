// What every tensor table must satisfy, whatever its format, and how its faults are worded.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace shoal::formats {

struct PlacedTensor {
  std::string_view name;
  uint64_t offset;
  uint64_t bytes;  // offset + bytes does not overflow
};

// `malformed` when two tensors share a name or a byte. O(n log n).
Result<> check_layout(std::vector<PlacedTensor> tensors);

// Product of all dimensions; `malformed` on overflow or a zero dimension. An empty shape is one value.
Result<uint64_t> count_values(std::span<const uint64_t> shape);

// Text from a file for an Error: one line of printable ASCII in quotes, cut after 80 characters.
std::string quote(std::string_view text);

// The Error again, with "where: " before its message.
[[nodiscard]] std::unexpected<Error> fail_within(std::string_view where, Error error);

}  // namespace shoal::formats
