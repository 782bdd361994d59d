#include "link/crc32c.h"

#include <array>
#include <cstring>

#include "base/system.h"

#if defined(__x86_64__)
#include <nmmintrin.h>
#elif defined(__aarch64__)
#include <arm_acle.h>
#endif

namespace shoal::link {
namespace {

constexpr uint32_t kPolynomial = 0x82f63b78;  // reflected

// table[b]: the state b advanced over one zero byte.
consteval std::array<uint32_t, 256> make_table() {
  std::array<uint32_t, 256> table{};
  for (uint32_t value = 0; value < 256; ++value) {
    uint32_t state = value;
    for (int bit = 0; bit < 8; ++bit) state = (state & 1) ? (state >> 1) ^ kPolynomial : state >> 1;
    table[value] = state;
  }
  return table;
}
constexpr std::array<uint32_t, 256> kTable = make_table();

uint32_t update_table(uint32_t state, const std::byte* data, size_t size) {
  for (size_t i = 0; i < size; ++i)
    state = kTable[(state ^ static_cast<uint32_t>(data[i])) & 0xff] ^ (state >> 8);
  return state;
}

// The CRC instruction has a latency of 3 cycles and a throughput of one, so three lanes run side by side;
// their states are joined by advancing a state over kLaneBytes zero bytes, which is linear: four table
// look-ups.
constexpr size_t kLaneBytes = 1024;

struct LaneShift {
  std::array<std::array<uint32_t, 256>, 4> table;
  uint32_t operator()(uint32_t state) const {
    return table[0][state & 0xff] ^ table[1][(state >> 8) & 0xff] ^ table[2][(state >> 16) & 0xff] ^
           table[3][state >> 24];
  }
};

LaneShift make_lane_shift() {
  std::array<uint32_t, 32> bit_images{};
  const std::array<std::byte, kLaneBytes> zeros{};
  for (int bit = 0; bit < 32; ++bit) bit_images[bit] = update_table(1u << bit, zeros.data(), zeros.size());
  LaneShift shift{};
  for (int part = 0; part < 4; ++part) {
    for (uint32_t value = 0; value < 256; ++value) {
      for (int bit = 0; bit < 8; ++bit) {
        if (value >> bit & 1) shift.table[part][value] ^= bit_images[part * 8 + bit];
      }
    }
  }
  return shift;
}

uint64_t load_word(const std::byte* data) {
  uint64_t word;
  std::memcpy(&word, data, sizeof(word));
  return word;
}

#if defined(__x86_64__)
#define SHOAL_CRC_TARGET __attribute__((target("sse4.2")))
SHOAL_CRC_TARGET inline uint32_t step_word(uint32_t state, uint64_t word) {
  return static_cast<uint32_t>(_mm_crc32_u64(state, word));
}
#elif defined(__aarch64__)
#if defined(__clang__)
#define SHOAL_CRC_TARGET __attribute__((target("crc")))
#else
#define SHOAL_CRC_TARGET __attribute__((target("+crc")))
#endif
SHOAL_CRC_TARGET inline uint32_t step_word(uint32_t state, uint64_t word) {
  return __crc32cd(state, word);
}
#else
#define SHOAL_CRC_TARGET
inline uint32_t step_word(uint32_t state, uint64_t) {
  return state;
}
#endif

SHOAL_CRC_TARGET uint32_t update_instruction(uint32_t state, const std::byte* data, size_t size) {
  static const LaneShift shift = make_lane_shift();
  for (; size >= 3 * kLaneBytes; data += 3 * kLaneBytes, size -= 3 * kLaneBytes) {
    uint32_t second = 0;
    uint32_t third = 0;
    for (size_t i = 0; i < kLaneBytes; i += 8) {
      state = step_word(state, load_word(data + i));
      second = step_word(second, load_word(data + kLaneBytes + i));
      third = step_word(third, load_word(data + 2 * kLaneBytes + i));
    }
    state = shift(shift(state) ^ second) ^ third;
  }
  for (; size >= 8; data += 8, size -= 8) state = step_word(state, load_word(data));
  return update_table(state, data, size);
}

}  // namespace

uint32_t crc32c_table(ByteView bytes) {
  return ~update_table(~0u, bytes.data(), bytes.size());
}

uint32_t crc32c(ByteView bytes) {
  static const bool fast = cpu_has_crc32c();
  return fast ? ~update_instruction(~0u, bytes.data(), bytes.size()) : crc32c_table(bytes);
}

}  // namespace shoal::link
