#include "link/verbs_device.h"

#include <algorithm>
#include <arpa/inet.h>
#include <cstring>
#include <fmt/format.h>
#include <netinet/in.h>
#include <span>

#include "base/socket.h"

namespace shoal::link {
namespace {

constexpr int kMaxGids = 256;  // an index is a byte in the address of a queue pair
constexpr std::array<uint8_t, 12> kMappedPrefix = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

bool is_ipv4(const verbs::Gid& gid) {
  return std::equal(kMappedPrefix.begin(), kMappedPrefix.end(), gid.raw.begin());
}

// The list that the library hands out, given back in the end.
class DeviceList {
 public:
  explicit DeviceList(const VerbsLibrary& library) : library_(library) {
    devices_ = library.get_device_list(&count_);
    if (devices_ == nullptr) count_ = 0;
  }
  ~DeviceList() {
    if (devices_ != nullptr) library_.free_device_list(devices_);
  }
  DeviceList(const DeviceList&) = delete;
  DeviceList& operator=(const DeviceList&) = delete;
  std::span<verbs::Device*> all() const { return {devices_, static_cast<size_t>(std::max(count_, 0))}; }

 private:
  const VerbsLibrary& library_;
  verbs::Device** devices_ = nullptr;
  int count_ = 0;
};

}  // namespace

Result<verbs::Gid> gid_of_address(std::string_view address) {
  SHOAL_TRY(SocketAddress parsed, SocketAddress::parse(address, 0));
  verbs::Gid gid;
  if (parsed.family() == AF_INET) {
    sockaddr_in ipv4;
    std::memcpy(&ipv4, parsed.get(), sizeof(ipv4));
    std::copy(kMappedPrefix.begin(), kMappedPrefix.end(), gid.raw.begin());
    std::memcpy(gid.raw.data() + kMappedPrefix.size(), &ipv4.sin_addr, sizeof(ipv4.sin_addr));
  } else {
    sockaddr_in6 ipv6;
    std::memcpy(&ipv6, parsed.get(), sizeof(ipv6));
    std::memcpy(gid.raw.data(), &ipv6.sin6_addr, gid.raw.size());
  }
  return gid;
}

std::vector<std::string> VerbsDevice::list(const VerbsLibrary& library) {
  std::vector<std::string> names;
  DeviceList devices(library);
  for (verbs::Device* device : devices.all()) names.emplace_back(library.get_device_name(device));
  return names;
}

Result<VerbsDevice> VerbsDevice::find(std::shared_ptr<const VerbsLibrary> library,
                                      std::string_view local_address) {
  SHOAL_TRY(verbs::Gid wanted, gid_of_address(local_address));
  std::string seen;
  bool any_address = false;
  std::vector<VerbsDevice> with_lid;
  DeviceList devices(*library);
  for (verbs::Device* handle : devices.all()) {
    VerbsDevice device(library, handle);
    if (device.look_for(wanted, any_address)) return device;
    const char* state = device.context_ == nullptr                       ? "cannot be opened"
                        : device.port_.state != verbs::PortState::active ? "is down"
                                                                         : "has other addresses";
    seen += fmt::format("{}{} {}", seen.empty() ? "" : ", ", device.name_, state);
    bool active = device.context_ != nullptr && device.port_.state == verbs::PortState::active;
    if (active && device.port_.lid != 0) with_lid.push_back(std::move(device));
  }
  if (!any_address && with_lid.size() == 1) return std::move(with_lid.front());
  return fail(ErrorCode::not_found,
              fmt::format("no RDMA device of {} carries {}{}", library->name, local_address,
                          seen.empty() ? ": there is none" : ": " + seen),
              "the interface needs this address of its own and must be in no bridge; tcp is used instead");
}

VerbsDevice::VerbsDevice(std::shared_ptr<const VerbsLibrary> library, verbs::Device* device)
    : library_(std::move(library)),
      context_(library_->open_device(device)),
      name_(library_->get_device_name(device)) {
  if (context_ != nullptr && library_->query_port(context_, kPort, &port_) != 0) port_ = {};
}

VerbsDevice::VerbsDevice(VerbsDevice&& other) noexcept
    : library_(other.library_),
      context_(std::exchange(other.context_, nullptr)),
      name_(other.name_),
      port_(other.port_),
      gid_index_(other.gid_index_),
      gid_(other.gid_) {}

VerbsDevice::~VerbsDevice() {
  if (context_ != nullptr) library_->close_device(context_);
}

bool VerbsDevice::look_for(const verbs::Gid& wanted, bool& any_address) {
  if (context_ == nullptr || port_.state != verbs::PortState::active) return false;
  for (int index = 0; index < std::min(port_.gid_count, kMaxGids); ++index) {
    verbs::Gid gid;
    if (library_->query_gid(context_, kPort, index, &gid) != 0) continue;
    any_address = any_address || is_ipv4(gid);
    if (gid != wanted) continue;
    // The last of equal ones: Linux lists an address first as RoCE v1, then as v2.
    gid_index_ = index;
    gid_ = gid;
  }
  return has_gid();
}

}  // namespace shoal::link
