#include "engine/cpu/packed_matrix.h"

#include <algorithm>
#include <cstring>

#include "base/assert.h"
#include "engine/cpu/thread_pool.h"

namespace shoal::engine::cpu {
namespace {

using formats::TensorType;

constexpr size_t kPair8Bytes = 64 + 2 * 512;  // of q8_0, see the header
constexpr size_t kPair4Bytes = 64 + 2 * 256;  // of q4_0
constexpr size_t kQ4KBytes = 2368;
constexpr size_t kQ6KBytes = 3392;
constexpr uint32_t kStripColumns = 256;  // whole blocks and pairs of blocks of every type

size_t panel_bytes_of(TensorType type, size_t columns) {
  switch (type) {
    case TensorType::f32:
      return columns * 64;
    case TensorType::f16:
    case TensorType::bf16:
      return columns * 32;
    case TensorType::q8_0:
      return columns / 64 * kPair8Bytes + columns / 32 % 2 * (64 + 512);
    case TensorType::q4_0:
      return columns / 64 * kPair4Bytes + columns / 32 % 2 * (64 + 256);
    case TensorType::q4_k:
      return columns / 256 * kQ4KBytes;
    case TensorType::q6_k:
      return columns / 256 * kQ6KBytes;
    default:
      return 0;
  }
  return 0;
}

// Word `index` of lane `lane` in a run of words x16.
void put_word(uint8_t* to, size_t index, size_t lane, uint32_t word) {
  std::memcpy(to + 64 * index + 4 * lane, &word, 4);
}
uint32_t word_at(const uint8_t* from) {
  uint32_t word;
  std::memcpy(&word, from, 4);
  return word;
}
void put_half(uint8_t* to, size_t lane, const uint8_t* from) {
  std::memcpy(to + 2 * lane, from, 2);
}

// One row of a panel from one row of the file, for each type.
template <size_t value_bytes>
void pack_values(uint8_t* panel, size_t lane, const uint8_t* row, size_t columns) {
  for (size_t k = 0; k < columns; ++k) {
    std::memcpy(panel + (k * kPanelRows + lane) * value_bytes, row + k * value_bytes, value_bytes);
  }
}

void pack_q8_0(uint8_t* panel, size_t lane, const uint8_t* row, size_t columns) {
  for (size_t block = 0; block < columns / 32; ++block, row += 34) {
    uint8_t* pair = panel + block / 2 * kPair8Bytes;
    put_half(pair + block % 2 * 32, lane, row);
    for (size_t i = 0; i < 8; ++i) {
      put_word(pair + 64 + block % 2 * 512, i, lane, word_at(row + 2 + 4 * i) ^ 0x80808080u);
    }
  }
}

void pack_q4_0(uint8_t* panel, size_t lane, const uint8_t* row, size_t columns) {
  for (size_t block = 0; block < columns / 32; ++block, row += 18) {
    uint8_t* pair = panel + block / 2 * kPair4Bytes;
    put_half(pair + block % 2 * 32, lane, row);
    for (size_t i = 0; i < 4; ++i) put_word(pair + 64 + block % 2 * 256, i, lane, word_at(row + 2 + 4 * i));
  }
}

// The file's 12 bytes hold eight 6-bit scales and eight 6-bit mins.
void unpack_q4_k_scales(const uint8_t* packed, uint8_t (&scales)[8], uint8_t (&mins)[8]) {
  for (size_t i = 0; i < 4; ++i) {
    scales[i] = packed[i] & 63;
    mins[i] = packed[i + 4] & 63;
    scales[i + 4] = static_cast<uint8_t>((packed[i + 8] & 15) | (packed[i] >> 6) << 4);
    mins[i + 4] = static_cast<uint8_t>((packed[i + 8] >> 4) | (packed[i + 4] >> 6) << 4);
  }
}

void pack_q4_k(uint8_t* panel, size_t lane, const uint8_t* row, size_t columns) {
  for (size_t block = 0; block < columns / 256; ++block, row += 144, panel += kQ4KBytes) {
    put_half(panel, lane, row);
    put_half(panel + 32, lane, row + 2);
    uint8_t scales[8], mins[8];
    unpack_q4_k_scales(row + 4, scales, mins);
    for (size_t i = 0; i < 8; ++i) {
      panel[64 + 16 * i + lane] = scales[i];
      panel[192 + 32 * (i / 2) + 2 * lane + i % 2] = mins[i];
    }
    for (size_t i = 0; i < 32; ++i) put_word(panel + 320, i, lane, word_at(row + 16 + 4 * i));
  }
}

void pack_q6_k(uint8_t* panel, size_t lane, const uint8_t* row, size_t columns) {
  for (size_t block = 0; block < columns / 256; ++block, row += 210, panel += kQ6KBytes) {
    put_half(panel, lane, row + 208);
    for (size_t i = 0; i < 16; ++i) panel[64 + 16 * i + lane] = row[192 + i];
    for (size_t i = 0; i < 32; ++i) put_word(panel + 320, i, lane, word_at(row + 4 * i));
    for (size_t i = 0; i < 16; ++i) put_word(panel + 320 + 2048, i, lane, word_at(row + 128 + 4 * i));
  }
}

void pack_row(TensorType type, uint8_t* panel, size_t lane, const uint8_t* row, size_t columns) {
  switch (type) {
    case TensorType::f32:
      return pack_values<4>(panel, lane, row, columns);
    case TensorType::f16:
    case TensorType::bf16:
      return pack_values<2>(panel, lane, row, columns);
    case TensorType::q8_0:
      return pack_q8_0(panel, lane, row, columns);
    case TensorType::q4_0:
      return pack_q4_0(panel, lane, row, columns);
    case TensorType::q4_k:
      return pack_q4_k(panel, lane, row, columns);
    case TensorType::q6_k:
      return pack_q6_k(panel, lane, row, columns);
    default:
      return;
  }
}

}  // namespace

Result<PackedMatrix> PackedMatrix::pack(TensorType type, ByteView file, uint64_t file_columns,
                                        uint32_t first_row, uint32_t rows, uint32_t first_column,
                                        uint32_t columns, ThreadPool& pool) {
  const formats::TensorTypeInfo& info = formats::type_info(type);
  SHOAL_ASSERT(file_columns % info.block_values == 0 && first_column % info.block_values == 0 &&
               columns % info.block_values == 0 && uint64_t{first_column} + columns <= file_columns);
  size_t row_bytes = file_columns / info.block_values * info.block_bytes;
  SHOAL_ASSERT((uint64_t{first_row} + rows) * row_bytes <= file.size());
  PackedMatrix matrix;
  matrix.type_ = type;
  matrix.rows_ = rows;
  matrix.columns_ = columns;
  matrix.panel_bytes_ = panel_bytes_of(type, columns);
  auto bytes = checked_multiply<size_t>(matrix.panel_count(), matrix.panel_bytes_);
  if (!bytes) return fail(ErrorCode::out_of_memory, "a packed matrix is larger than memory can be");
  SHOAL_TRY(matrix.storage_, HugeBuffer::allocate(*bytes, "weights"));

  const auto* source = reinterpret_cast<const uint8_t*>(file.data()) + first_row * row_bytes +
                       first_column / info.block_values * info.block_bytes;
  auto* panels = reinterpret_cast<uint8_t*>(matrix.storage_.data());
  pool.run(matrix.panel_count(), [&](uint32_t panel, unsigned) {
    uint32_t count = std::min(kPanelRows, rows - panel * kPanelRows);
    uint8_t* to = panels + panel * matrix.panel_bytes_;
    const uint8_t* from = source + size_t{panel} * kPanelRows * row_bytes;
    // In strips, so that the sixteen rows meet in the first-level cache.
    for (uint32_t column = 0; column < columns; column += kStripColumns) {
      uint32_t strip = std::min(kStripColumns, columns - column);
      for (size_t lane = 0; lane < count; ++lane) {
        pack_row(type, to + panel_bytes_of(type, column), lane,
                 from + lane * row_bytes + column / info.block_values * info.block_bytes, strip);
      }
    }
  });
  return matrix;
}

ActivationFormat PackedMatrix::activation_format() const {
  switch (type_) {
    case TensorType::f32:
    case TensorType::f16:
    case TensorType::bf16:
      return ActivationFormat::f32;
    case TensorType::q8_0:
    case TensorType::q4_0:
      return ActivationFormat::q8_32;
    case TensorType::q4_k:
    case TensorType::q6_k:
      return ActivationFormat::q8_256;
    default:
      return ActivationFormat::f32;
  }
  return ActivationFormat::f32;
}

}  // namespace shoal::engine::cpu
