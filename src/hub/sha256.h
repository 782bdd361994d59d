// SHA-256 (FIPS 180-4), for telling whether two files are the same.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "base/bytes.h"

namespace shoal::hub {

class Sha256 {
 public:
  void update(ByteView bytes);
  // Ends the message; the object must not be used after.
  std::string hex_digest();

 private:
  void block(const std::byte* bytes);

  std::array<uint32_t, 8> state_ = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                    0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<std::byte, 64> pending_ = {};
  size_t pending_size_ = 0;
  uint64_t length_bytes_ = 0;
};

}  // namespace shoal::hub
