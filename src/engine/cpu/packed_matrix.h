// A weight matrix [rows, columns] in the layout the kernels read: panels of 16 output rows, one 32-bit lane
// per row, values of a row in order of K. The last panel is padded with zero rows. Quantised types keep their
// bits. Matrices of one stack share their storage; copies share it too.
//
// A panel, all little-endian, `x16` = one value for each of the 16 rows:
//   f32, f16, bf16:  per k: value x16
//   f8:       per group of columns: scale f32 x16, 256 times the file's; then per k: code x16
//   mxfp4:    per four blocks of 32: scales e8m0 [4] x16, then per block 4 words x16; nibble j of word i is
//             value 8i + j
//   q8_0:     per pair of blocks of 32: scales f16 [2] x16, then per block 8 words x16; a word is four values
//             of one row, each value + 128 as u8. A last odd block still has 64 bytes of scales.
//   q4_0, iq4_nl:  the same with 4 words x16 per block; word i holds values 4i .. 4i+3 in the low nibbles and
//             16+4i .. 19+4i in the high ones, as in the file.
//   q5_0:     the same with one word x16 more per block: bit j of its byte b is the fifth bit of value 4j + b
//   affine4, affine5, affine8:  per group of columns: scale x16, bias x16 (f16, bf16 or f32), then per block
//             of 32 the words of q4_0, q5_0 or q8_0 (bytes as in the file). Q4_1 and Q5_1 are these with
//             groups of 32.
//   q2_k:     per block of 256: d f16 x16, dmin f16 x16, scales [8] x16 and minima [8] x16 (each byte two
//             neighbours, the even one low), 16 words x16 as in the file. 1344 bytes.
//   q3_k:     per block of 256: d f16 x16, 32 bytes unused, low four bits of the scales + 32 [8] x16 (each
//             byte two neighbours, the even one low), their upper bit pairs [4] x16 (of four neighbours), low
//             bits 16 words x16, third bits 8 words x16, both as in the file. 1792 bytes.
//   q4_k:     per block of 256: d f16 x16, dmin f16 x16, scales u8 [8] x16, mins u8 [4] x16 x2 (pairs of
//             neighbours), 32 words x16 as in the file: word 8c+i has sub-block 2c in the low nibbles, 2c+1
//             in the high ones. 2368 bytes.
//   q5_k:     the same and then fifth bits 8 words x16 as in the file. 2880 bytes.
//   q6_k:     per block of 256: d f16 x16, 32 bytes unused, scales i8 [16] x16, low bits 32 words x16, high
//             bits 16 words x16, both as in the file. 3392 bytes.
//   iq4_xs:   per block of 256: d f16 x16, 32 bytes unused, scales i8 [8] x16, 32 words x16 as in the file.
//             2240 bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "base/memory.h"
#include "base/result.h"
#include "engine/cpu/file_matrix.h"
#include "engine/cpu/kernel_table.h"

namespace shoal::engine::cpu {

class ThreadPool;

class PackedMatrix {
 public:
  PackedMatrix() = default;
  // Packs a share of `matrix`. Blocks that the share cuts or that are transposed become f32 (f16 does not
  // hold FP8 times its scale); floats keep their type. Errors: out_of_memory, malformed (a NaN among f8
  // weights or e8m0 scales), unsupported (columns that the type's kernels do not take).
  static Result<PackedMatrix> pack(const FileMatrix& matrix, const MatrixShare& share, ThreadPool& pool);

  // The same share of each of `matrices`, in one storage. `packed(first, end)` is called whenever some more
  // of them are done, so that their file's pages can be given back.
  static Result<std::vector<PackedMatrix>> pack_stack(
      std::span<const FileMatrix> matrices, const MatrixShare& share, ThreadPool& pool,
      const std::function<void(size_t first, size_t end)>& packed);

  PanelType panel_type() const { return type_; }
  uint32_t rows() const { return rows_; }
  uint32_t columns() const { return columns_; }
  uint32_t group_columns() const { return group_columns_; }  // that share a scale; 0 where the type says it
  uint32_t panel_count() const { return (rows_ + kPanelRows - 1) / kPanelRows; }
  size_t panel_bytes() const { return panel_bytes_; }
  size_t bytes() const { return panel_count() * panel_bytes_; }
  const uint8_t* panels() const { return panels_; }
  ActivationFormat activation_format() const;

 private:
  static Result<PackedMatrix> shape(const FileMatrix& matrix, const MatrixShare& share);

  PanelType type_ = PanelType::f32;
  uint32_t rows_ = 0;
  uint32_t columns_ = 0;
  uint32_t group_columns_ = 0;
  size_t panel_bytes_ = 0;
  uint8_t* panels_ = nullptr;
  std::shared_ptr<HugeBuffer> storage_;
};

}  // namespace shoal::engine::cpu
