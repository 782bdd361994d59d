#include "cluster/local_addresses.h"

#include <algorithm>
#include <arpa/inet.h>
#include <array>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <string_view>
#include <tuple>
#include <utility>

namespace shoal::cluster {
namespace {

// Interfaces that other machines seldom reach: containers, virtual machines, tunnels.
constexpr std::array<std::string_view, 12> kVirtual = {
    "docker", "br-", "veth", "virbr", "cni", "flannel", "tun", "utun", "tailscale", "wg", "awdl", "llw"};

bool is_virtual(std::string_view interface) {
  return std::any_of(kVirtual.begin(), kVirtual.end(),
                     [&](std::string_view name) { return interface.starts_with(name); });
}

std::string numeric(const sockaddr& address) {
  std::array<char, INET6_ADDRSTRLEN> text{};
  if (address.sa_family == AF_INET) {
    inet_ntop(AF_INET, &reinterpret_cast<const sockaddr_in&>(address).sin_addr, text.data(), text.size());
  } else if (address.sa_family == AF_INET6) {
    const in6_addr& ipv6 = reinterpret_cast<const sockaddr_in6&>(address).sin6_addr;
    if (IN6_IS_ADDR_LINKLOCAL(&ipv6)) return {};
    inet_ntop(AF_INET6, &ipv6, text.data(), text.size());
  }
  return text.data();
}

}  // namespace

std::vector<std::string> local_addresses() {
  ifaddrs* first = nullptr;
  if (getifaddrs(&first) != 0) return {"127.0.0.1"};
  std::vector<std::tuple<int, size_t, std::string>> ranked;  // rank, position, address
  for (const ifaddrs* one = first; one; one = one->ifa_next) {
    if (!one->ifa_addr || (one->ifa_flags & IFF_UP) == 0 || (one->ifa_flags & IFF_LOOPBACK) != 0) continue;
    std::string text = numeric(*one->ifa_addr);
    if (text.empty()) continue;
    bool second = one->ifa_addr->sa_family == AF_INET6 || text.starts_with("169.254.");
    int rank = (is_virtual(one->ifa_name) ? 2 : 0) + (second ? 1 : 0);
    ranked.emplace_back(rank, ranked.size(), std::move(text));
  }
  freeifaddrs(first);
  std::sort(ranked.begin(), ranked.end());
  std::vector<std::string> addresses;
  for (auto& [rank, position, text] : ranked) addresses.push_back(std::move(text));
  if (addresses.empty()) addresses.push_back("127.0.0.1");
  return addresses;
}

}  // namespace shoal::cluster
