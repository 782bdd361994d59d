// One lane of a panel, word by word: what the packers are made of.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "engine/cpu/packing.h"

namespace shoal::engine::cpu {

inline constexpr size_t kLanes = kPanelRows;

inline uint32_t word_at(const uint8_t* from) {
  uint32_t word;
  std::memcpy(&word, from, 4);
  return word;
}
inline uint64_t long_at(const uint8_t* from) {
  uint64_t value;
  std::memcpy(&value, from, 8);
  return value;
}
// Word `index` of lane `lane` in a run of words x16.
inline void put_word(uint8_t* to, size_t index, size_t lane, uint32_t word) {
  std::memcpy(to + 64 * index + 4 * lane, &word, 4);
}
template <size_t count>
void put_words(uint8_t* to, size_t lane, const uint8_t* from) {
  for (size_t i = 0; i < count; ++i) put_word(to, i, lane, word_at(from + 4 * i));
}
inline void put_half(uint8_t* to, size_t lane, const uint8_t* from) {
  std::memcpy(to + 2 * lane, from, 2);
}
inline const std::byte* bytes_at(const uint8_t* from) {
  return reinterpret_cast<const std::byte*>(from);
}

// The packers of the types with blocks of 256, see pack_strip().
bool pack_q2_k(uint8_t* panel, size_t lane, const RowStrip& strip);
bool pack_q3_k(uint8_t* panel, size_t lane, const RowStrip& strip);
bool pack_q4_k(uint8_t* panel, size_t lane, const RowStrip& strip);
bool pack_q5_k(uint8_t* panel, size_t lane, const RowStrip& strip);
bool pack_q6_k(uint8_t* panel, size_t lane, const RowStrip& strip);
bool pack_iq4_xs(uint8_t* panel, size_t lane, const RowStrip& strip);

}  // namespace shoal::engine::cpu
