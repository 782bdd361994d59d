#include "hub/sha256.h"

#include <array>
#include <fmt/format.h>
#include <fmt/ranges.h>

namespace shoal::hub {

Sha256::Sha256() : hash_(shoal_sha256_new(), &shoal_sha256_free) {}

void Sha256::update(ByteView bytes) {
  shoal_sha256_update(hash_.get(), {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
}

std::string Sha256::hex_digest() const {
  std::array<uint8_t, 32> digest = {};
  shoal_sha256_digest(hash_.get(), digest.data());
  return fmt::format("{:02x}", fmt::join(digest, ""));
}

}  // namespace shoal::hub
