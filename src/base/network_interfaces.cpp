#include "base/network_interfaces.h"

#include <algorithm>
#include <arpa/inet.h>
#include <array>
#include <cstdlib>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <optional>

#include "base/file.h"

namespace shoal {
namespace {

constexpr uint64_t kMaxAttributeBytes = 4096;
constexpr int kMaxLowerDepth = 4;              // a VLAN on a bond on a bridge
constexpr double kMaxSpeedMbps = 100'000'000;  // beyond it a figure is nonsense

// ARPHRD_* of <linux/if_arp.h>.
constexpr long kEthernet = 1, kInfiniband = 32, kLoopback = 772;

std::optional<double> read_number(const std::filesystem::path& path) {
  const auto text = read_text_file(path, kMaxAttributeBytes);
  if (!text) return std::nullopt;
  char* end = nullptr;
  const double value = std::strtod(text->c_str(), &end);
  return end == text->c_str() ? std::nullopt : std::optional(value);
}

bool is_there(const std::filesystem::path& path) {
  std::error_code error;
  return std::filesystem::exists(path, error);
}

// The last part of what a symbolic link points to; empty when it is none.
std::string target_name(const std::filesystem::path& link) {
  std::error_code error;
  return std::filesystem::read_symlink(link, error).filename().string();
}

// Sorted; empty when it is no directory.
std::vector<std::filesystem::path> entries_of(const std::filesystem::path& directory) {
  std::vector<std::filesystem::path> entries;
  std::error_code error;
  for (auto entry = std::filesystem::directory_iterator(directory, error);
       !error && entry != std::filesystem::directory_iterator(); entry.increment(error))
    entries.push_back(entry->path());
  std::ranges::sort(entries);
  return entries;
}

uint32_t to_speed(std::optional<double> mbps) {
  return mbps && *mbps > 0 && *mbps <= kMaxSpeedMbps ? static_cast<uint32_t>(*mbps) : 0;
}

// "100 Gb/sec (4X EDR)" of an RDMA port, in Mb/s.
uint32_t rdma_speed(const std::filesystem::path& interface) {
  for (const auto& adapter : entries_of(interface / "device" / "infiniband"))
    if (const auto gigabits = read_number(adapter / "ports" / "1" / "rate"))
      return to_speed(*gigabits * 1000);
  return 0;
}

bool is_thunderbolt(const std::filesystem::path& interface) {
  return target_name(interface / "device" / "subsystem") == "thunderbolt" ||
         target_name(interface / "device" / "driver").starts_with("thunderbolt");
}

InterfaceKind kind_of_ethernet(const std::filesystem::path& interface) {
  if (is_there(interface / "wireless") || is_there(interface / "phy80211")) return InterfaceKind::wifi;
  if (is_thunderbolt(interface)) return InterfaceKind::thunderbolt;
  if (is_there(interface / "device" / "infiniband")) return InterfaceKind::roce;
  return InterfaceKind::ethernet;
}

InterfaceType type_from_sysfs(const std::filesystem::path& class_net, std::string_view name, int depth) {
  const std::filesystem::path interface = class_net / name;
  const double hardware = read_number(interface / "type").value_or(0);
  const uint32_t speed = to_speed(read_number(interface / "speed"));
  if (hardware == kLoopback) return {InterfaceKind::loopback, 0};
  if (hardware == kInfiniband) return {InterfaceKind::infiniband, speed ? speed : rdma_speed(interface)};
  if (hardware == 0) return {};
  if (hardware != kEthernet) return {InterfaceKind::tunnel, speed};
  if (!is_there(interface / "device") && depth > 0) {
    for (const auto& entry : entries_of(interface)) {
      const std::string file = entry.filename().string();
      if (!file.starts_with("lower_")) continue;
      const InterfaceType lower = type_from_sysfs(class_net, file.substr(file.find('_') + 1), depth - 1);
      if (lower.kind != InterfaceKind::unknown) return {lower.kind, speed ? speed : lower.speed_mbps};
    }
  }
  return {kind_of_ethernet(interface), speed};
}

// Empty for other families and for addresses that mean nothing without a scope.
std::string numeric(const sockaddr& address) {
  std::array<char, INET6_ADDRSTRLEN> text{};
  if (address.sa_family == AF_INET) {
    inet_ntop(AF_INET, &reinterpret_cast<const sockaddr_in&>(address).sin_addr, text.data(), text.size());
  } else if (address.sa_family == AF_INET6) {
    const in6_addr& ipv6 = reinterpret_cast<const sockaddr_in6&>(address).sin6_addr;
    if (!IN6_IS_ADDR_LINKLOCAL(&ipv6)) inet_ntop(AF_INET6, &ipv6, text.data(), text.size());
  }
  return text.data();
}

}  // namespace

std::string_view to_string(InterfaceKind kind) {
  constexpr std::array<std::string_view, 8> kNames = {"unknown",     "loopback",   "ethernet", "wifi",
                                                      "thunderbolt", "infiniband", "roce",     "tunnel"};
  return kNames.at(static_cast<size_t>(kind));
}

InterfaceType interface_type_from_sysfs(const std::filesystem::path& class_net, std::string_view name) {
  if (name.empty() || name.find('/') != std::string_view::npos || name.starts_with('.')) return {};
  return type_from_sysfs(class_net, name, kMaxLowerDepth);
}

std::vector<NetworkInterface> network_interfaces() {
  std::vector<NetworkInterface> interfaces;
  ifaddrs* first = nullptr;
  if (::getifaddrs(&first) != 0) return interfaces;
  for (const ifaddrs* one = first; one != nullptr; one = one->ifa_next) {
    if ((one->ifa_flags & IFF_UP) == 0) continue;
    auto known = std::ranges::find(interfaces, one->ifa_name, &NetworkInterface::name);
    if (known == interfaces.end()) {
      interfaces.push_back(
          {.name = one->ifa_name, .type = detail::interface_type(one->ifa_name), .addresses = {}});
      known = interfaces.end() - 1;
    }
    if (one->ifa_addr == nullptr) continue;
    if (std::string address = numeric(*one->ifa_addr); !address.empty())
      known->addresses.push_back(std::move(address));
  }
  ::freeifaddrs(first);
  return interfaces;
}

const NetworkInterface* interface_with(const std::vector<NetworkInterface>& interfaces,
                                       std::string_view address) {
  for (const NetworkInterface& interface : interfaces)
    if (std::ranges::find(interface.addresses, address) != interface.addresses.end()) return &interface;
  return nullptr;
}

}  // namespace shoal
