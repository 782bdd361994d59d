// Which values of a checkpoint's tensors make a weight: checkpoints fuse, stack, interleave and transpose
// matrices in their own ways, and an architecture page says which with these. Shapes are checked by whoever
// makes them.
#pragma once

#include <cstdint>
#include <optional>

#include "formats/checkpoint.h"

namespace shoal::engine {

// `count` runs of `length` neighbours: the first starts at `first`, each other `stride` after the one before.
// length 0: everything from `first` on (count is then 1). Three heads' keys in [q k v] per head of 64 + 16 +
// 16 rows are {64, 16, 96, 3}; the even rows of eight are {0, 1, 2, 4}.
struct Runs {
  uint32_t first = 0;
  uint32_t length = 0;
  uint32_t stride = 0;
  uint32_t count = 1;

  uint32_t size(uint32_t whole) const { return length == 0 ? whole - first : length * count; }
  bool lie_in(uint64_t whole) const {
    if (length == 0) return first < whole && count == 1;
    return count != 0 && first + uint64_t{count - 1} * stride + length <= whole;
  }
  uint32_t at(uint32_t index) const {
    return length == 0 ? first + index : first + index / length * stride + index % length;
  }
};

// `count` neighbours from `first` on; kAll: everything from there on.
struct Slice {
  static constexpr uint32_t kAll = UINT32_MAX;

  uint32_t first = 0;
  uint32_t count = kAll;

  uint32_t end() const { return first + count; }  // where there is a count
  uint32_t size(uint32_t whole) const { return count == kAll ? whole - first : count; }
  bool lies_in(uint32_t whole) const {
    return first < whole && (count == kAll || (count != 0 && uint64_t{first} + count <= whole));
  }
  bool operator==(const Slice&) const = default;
};

// A matrix out of a tensor [rows, columns], or out of matrix `index` of a tensor [E, rows, columns]: the
// chosen rows and columns, then transposed if the file has inputs by outputs; of that a rank's part.
struct MatrixSource {
  const formats::TensorInfo* tensor = nullptr;
  uint32_t index = 0;
  Runs rows = {};
  Runs columns = {};
  bool transposed = false;
  bool exact = false;  // quantised weights are kept as f32, to meet f32 activations: for routers, whose
                       // rounding errors exchange experts
  Slice part_rows = {};
  Slice part_columns = {};
};

enum class VectorMap : uint8_t { none, plus_one, negative_exponential };  // w, 1 + w, -exp(w)

// A vector out of a tensor, whatever its shape, read as one line; or out of entry `index` of its outermost
// dimension; of the chosen values a rank's part.
struct VectorSource {
  const formats::TensorInfo* tensor = nullptr;
  std::optional<uint32_t> index = {};
  Runs values = {};
  VectorMap map = VectorMap::none;
  Slice part = {};
};

}  // namespace shoal::engine
