// The RDMA devices of this machine: which there are, and which port carries a given IP address. A Thunderbolt
// port and a RoCE adapter list the addresses of their network interface among the GIDs; an InfiniBand fabric
// has none and addresses its ports by LID.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "link/verbs_library.h"

namespace shoal::link {

// Bounds that every provider known to us keeps; fewer may be free.
inline constexpr uint32_t kVerbsFrameBytes = 4096;
inline constexpr uint64_t kVerbsMaxRegionBytes = uint64_t{1} << 30;

// An open device. Its port 1 is the one we use: Thunderbolt devices have no other, adapters show a device per
// port.
class VerbsDevice {
 public:
  static constexpr uint8_t kPort = 1;

  // The names of all devices, none of them opened.
  static std::vector<std::string> list(const VerbsLibrary& library);
  // The device whose active port has the numeric IP address (of our end of the tcp connection); if no device
  // has IP addresses at all, the only one that is active with a LID. not_found names what was looked at.
  static Result<VerbsDevice> find(std::shared_ptr<const VerbsLibrary> library,
                                  std::string_view local_address);

  VerbsDevice(VerbsDevice&& other) noexcept;
  VerbsDevice& operator=(VerbsDevice&&) = delete;
  ~VerbsDevice();

  const VerbsLibrary& library() const { return *library_; }
  verbs::Context* context() const { return context_; }
  const std::string& name() const { return name_; }
  const verbs::PortAttributes& port() const { return port_; }
  bool has_gid() const { return gid_index_ >= 0; }
  int gid_index() const { return gid_index_; }
  const verbs::Gid& gid() const { return gid_; }

 private:
  VerbsDevice(std::shared_ptr<const VerbsLibrary> library, verbs::Device* device);
  // Finds `wanted` among the GIDs of an active port. Whether there are any of IP addresses is noted.
  bool look_for(const verbs::Gid& wanted, bool& any_address);

  std::shared_ptr<const VerbsLibrary> library_;
  verbs::Context* context_ = nullptr;
  std::string name_;
  verbs::PortAttributes port_;
  int gid_index_ = -1;
  verbs::Gid gid_;
};

// The GID of a numeric IP address: IPv4 mapped into IPv6. invalid_argument.
Result<verbs::Gid> gid_of_address(std::string_view address);

}  // namespace shoal::link
