// A weight matrix [rows, columns] in the layout the kernels read: panels of 16 output rows, one 32-bit lane
// per row, values of a row in order of K. The last panel is padded with zero rows. Quantised types keep their
// bits.
//
// A panel, all little-endian, `x16` = one value for each of the 16 rows:
//   f32, f16, bf16:  per k: value x16
//   q8_0:  per pair of blocks of 32: scales f16 [2] x16 (64 bytes), then per block 8 words x16;
//          a word is four values of one row, each value + 128 as u8. A last odd block still has 64 bytes of
//          scales.
//   q4_0:  the same with 4 words x16 per block; word i holds values 4i .. 4i+3 in the low nibbles and 16+4i
//   .. 19+4i
//          in the high ones, value + 8 as in the file.
//   q4_k:  per block of 256: d f16 x16, dmin f16 x16, scales u8 [8] x16, mins u8 [4] x16 x2 (pairs of
//   neighbours),
//          32 words x16 as in the file: word 8c+i has sub-block 2c in the low nibbles, 2c+1 in the high ones.
//          2368 bytes.
//   q6_k:  per block of 256: d f16 x16, 32 bytes unused, scales i8 [16] x16, low bits 32 words x16, high bits
//          16 words x16, both as in the file. 3392 bytes.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/bytes.h"
#include "base/memory.h"
#include "base/result.h"
#include "engine/cpu/kernel_table.h"
#include "formats/tensor_type.h"

namespace shoal::engine::cpu {

class ThreadPool;

class PackedMatrix {
 public:
  PackedMatrix() = default;
  // Packs rows [first_row, first_row + rows), columns [first_column, first_column + columns) of a matrix in
  // the file's form whose rows have `file_columns` values. Columns are cut on block borders (asserted).
  // Error: out_of_memory.
  static Result<PackedMatrix> pack(formats::TensorType type, ByteView file, uint64_t file_columns,
                                   uint32_t first_row, uint32_t rows, uint32_t first_column, uint32_t columns,
                                   ThreadPool& pool);

  formats::TensorType type() const { return type_; }
  uint32_t rows() const { return rows_; }
  uint32_t columns() const { return columns_; }
  uint32_t panel_count() const { return (rows_ + kPanelRows - 1) / kPanelRows; }
  size_t panel_bytes() const { return panel_bytes_; }
  size_t bytes() const { return storage_.size(); }
  const uint8_t* panels() const { return reinterpret_cast<const uint8_t*>(storage_.data()); }
  ActivationFormat activation_format() const;

 private:
  formats::TensorType type_ = formats::TensorType::f32;
  uint32_t rows_ = 0;
  uint32_t columns_ = 0;
  size_t panel_bytes_ = 0;
  HugeBuffer storage_;
};

}  // namespace shoal::engine::cpu
