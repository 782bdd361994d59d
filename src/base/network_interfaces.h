// The network interfaces of this machine as the system has them: what kind each is, how fast, and which
// addresses it has. What links between nodes run over, for figures and for people; nothing is measured here.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace shoal {

// Bridges, bonds and VLANs count as what they are made of; a virtual cable (veth) counts as Ethernet.
enum class InterfaceKind : uint8_t {
  unknown,
  loopback,
  ethernet,
  wifi,
  thunderbolt,
  infiniband,
  roce,  // Ethernet whose adapter has RDMA
  tunnel
};

std::string_view to_string(InterfaceKind kind);  // "wifi"; "unknown" for what the system does not say

struct InterfaceType {
  InterfaceKind kind = InterfaceKind::unknown;
  uint32_t speed_mbps = 0;  // 0: the system does not say
};

struct NetworkInterface {
  std::string name;  // "eth0"
  InterfaceType type;
  std::vector<std::string> addresses;  // numeric, without those that need a scope
};

// Those that are up, in the system's order; empty when it does not tell.
std::vector<NetworkInterface> network_interfaces();

// The interface that has `address`; nullptr when none does.
const NetworkInterface* interface_with(const std::vector<NetworkInterface>& interfaces,
                                       std::string_view address);

// How Linux describes an interface: files below `class_net`, which is /sys/class/net but in tests
// (Documentation/ABI/testing/sysfs-class-net). Files that are missing or damaged make it unknown, no more.
InterfaceType interface_type_from_sysfs(const std::filesystem::path& class_net, std::string_view name);

namespace detail {
// What differs between systems.
InterfaceType interface_type(const std::string& name);
}  // namespace detail

}  // namespace shoal
