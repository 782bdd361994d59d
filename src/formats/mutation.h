// Deterministic damage for tests of parsers: flipped bits, cut ends, inserted and removed bytes, and numbers
// that tempt a parser to overflow.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <random>

#include "base/bytes.h"

namespace shoal::formats {

// `original` with one to four changes in its first `header_bytes` bytes; equal seeds give equal results.
inline Bytes mutate(ByteView original, size_t header_bytes, uint64_t seed) {
  constexpr uint64_t kTempting[] = {0,
                                    1,
                                    0x7f,
                                    0xff,
                                    0xffff,
                                    0x7fffffff,
                                    0xffffffff,
                                    uint64_t{1} << 31,
                                    uint64_t{1} << 33,
                                    uint64_t{1} << 62,
                                    uint64_t{1} << 63,
                                    ~uint64_t{0}};
  std::mt19937_64 random(seed);
  Bytes bytes(original.begin(), original.end());
  const auto changes = 1 + random() % 4;
  for (uint64_t i = 0; i < changes && !bytes.empty(); ++i) {
    const size_t at = random() % std::min(bytes.size(), header_bytes);
    const auto place = bytes.begin() + static_cast<std::ptrdiff_t>(at);
    const size_t length = std::min<size_t>(1 + random() % 16, bytes.size() - at);
    switch (random() % 6) {
      case 0:
        bytes[at] ^= std::byte{1} << random() % 8;
        break;
      case 1:
        bytes[at] = static_cast<std::byte>(random());
        break;
      case 2:
        bytes.resize(at);
        break;
      case 3:
        bytes.insert(place, length, static_cast<std::byte>(random()));
        break;
      case 4:
        bytes.erase(place, place + static_cast<std::ptrdiff_t>(length));
        break;
      default: {
        const uint64_t number = kTempting[random() % std::size(kTempting)];
        std::memcpy(&bytes[at], &number, std::min<size_t>(8, bytes.size() - at));
      }
    }
  }
  return bytes;
}

}  // namespace shoal::formats
