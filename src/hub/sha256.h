// SHA-256 (FIPS 180-4), for telling whether two files are the same; computed by the bridge's library.
#pragma once

#include <memory>
#include <string>

#include "base/bytes.h"
#include "bridge/digest.h"

namespace shoal::hub {

class Sha256 {
 public:
  Sha256();
  void update(ByteView bytes);
  std::string hex_digest() const;  // of all bytes so far, 64 digits

 private:
  std::unique_ptr<shoal_sha256, decltype(&shoal_sha256_free)> hash_;
};

}  // namespace shoal::hub
