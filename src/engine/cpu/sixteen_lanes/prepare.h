// Activations into the form the products read (kernel_table.h has the layout). Include after a lanes.h.
//
// A block's scale is max|x| / 127 and its int8 are x * (127 / max|x|) rounded to nearest even. A block whose
// maximum is below 1e-30 counts as zeros (127 / max would overflow); a block that holds an infinity or NaN
// gets scale NaN, so that every output of its row is NaN.
#pragma once

namespace shoal::engine::cpu {
namespace {

struct BlockScale {
  float scale;
  float inverse;
};

inline BlockScale block_scale(const float* values, int count) {
  I32x16 largest = zero_i32();
  I32x16 magnitude = broadcast(int32_t{0x7fffffff});
  for (int i = 0; i < count; i += 16) largest = maximum(largest, bit_and(bits(load(values + i)), magnitude));
  int32_t top = fold_maximum(largest);  // orders as the magnitudes do, NaN above infinity
  float value;
  __builtin_memcpy(&value, &top, sizeof(value));
  if (top >= 0x7f800000) return {__builtin_nanf(""), 0.0f};
  if (value < 1e-30f) return {0.0f, 0.0f};
  return {value / 127.0f, 127.0f / value};
}

// Sixteen values as int8 at `to`; returns their sum. inverse 0 gives zeros whatever the values are.
inline int32_t quantise_16(const float* values, float inverse, int8_t* to) {
  I32x16 quantised = inverse == 0.0f ? zero_i32() : round_to_i32(multiply(load(values), broadcast(inverse)));
  store_low_bytes(to, quantised);
  return fold_add(quantised);
}

inline void put_word(uint8_t* to, int32_t value) {
  __builtin_memcpy(to, &value, 4);
}
inline void put_pair(uint8_t* to, int32_t low, int32_t high) {
  put_word(to, static_cast<int32_t>(uint32_t{static_cast<uint16_t>(low)} |
                                    uint32_t{static_cast<uint16_t>(high)} << 16));
}
inline void put_float(uint8_t* to, float value) {
  __builtin_memcpy(to, &value, 4);
}

void prepare_f32(const float* const* rows, uint32_t row_count, uint32_t columns, uint8_t* tile) {
  if (row_count == 1) {
    __builtin_memcpy(tile, rows[0], size_t{columns} * 4);
    return;
  }
  for (uint32_t r = 0; r < row_count; ++r) {
    for (uint32_t k = 0; k < columns; ++k) put_float(tile + 4 * (size_t{k} * row_count + r), rows[r][k]);
  }
}

void prepare_q8_32(const float* const* rows, uint32_t row_count, uint32_t columns, uint8_t* tile) {
  for (uint32_t r = 0; r < row_count; ++r) {
    const float* row = rows[r];
    uint8_t* to = tile + 4 * r;
    for (uint32_t k = 0; k < columns; k += 32, to += size_t{44} * row_count) {
      int8_t quantised[32];
      BlockScale scale = block_scale(row + k, 32);
      int32_t sum = quantise_16(row + k, scale.inverse, quantised);
      sum += quantise_16(row + k + 16, scale.inverse, quantised + 16);
      for (size_t i = 0; i < 8; ++i) __builtin_memcpy(to + 4 * i * row_count, quantised + 4 * i, 4);
      put_float(to + size_t{32} * row_count, scale.scale);
      put_word(to + size_t{36} * row_count, -128 * sum);
      put_float(to + size_t{40} * row_count, scale.scale * static_cast<float>(sum));
    }
  }
}

void prepare_q8_256(const float* const* rows, uint32_t row_count, uint32_t columns, uint8_t* tile) {
  size_t step = size_t{4} * row_count;
  for (uint32_t r = 0; r < row_count; ++r) {
    const float* row = rows[r];
    uint8_t* to = tile + 4 * r;
    for (uint32_t k = 0; k < columns; k += 256, to += 93 * step) {
      int8_t quantised[256];
      int32_t sums[16];
      BlockScale scale = block_scale(row + k, 256);
      for (int i = 0; i < 16; ++i) sums[i] = quantise_16(row + k + 16 * i, scale.inverse, quantised + 16 * i);
      for (size_t i = 0; i < 64; ++i) __builtin_memcpy(to + i * step, quantised + 4 * i, 4);
      put_float(to + 64 * step, scale.scale);
      for (size_t i = 0; i < 16; ++i) put_word(to + (65 + i) * step, -32 * sums[i]);
      for (size_t p = 0; p < 4; ++p) {
        put_pair(to + (81 + p) * step, sums[4 * p] + sums[4 * p + 1], sums[4 * p + 2] + sums[4 * p + 3]);
      }
      for (size_t p = 0; p < 8; ++p) put_pair(to + (85 + p) * step, sums[2 * p], sums[2 * p + 1]);
    }
  }
}

}  // namespace
}  // namespace shoal::engine::cpu
