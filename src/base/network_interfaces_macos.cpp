#ifdef __APPLE__
#include <algorithm>
#include <array>
#include <cstring>
#include <dlfcn.h>
#include <net/if.h>
#include <net/route.h>
#include <string_view>
#include <sys/socket.h>
#include <sys/sysctl.h>

#include "base/network_interfaces.h"

namespace shoal::detail {
namespace {

// SystemConfiguration is loaded when it is asked, so that nothing has to be linked for it; its objects are
// opaque here. Symbols as in SCNetworkConfiguration.h, CFArray.h and CFString.h.
class SystemConfiguration {
 public:
  SystemConfiguration()
      : library_(::dlopen("/System/Library/Frameworks/SystemConfiguration.framework/SystemConfiguration",
                          RTLD_LAZY | RTLD_LOCAL)) {
    load(copy_all_, "SCNetworkInterfaceCopyAll");
    load(bsd_name_, "SCNetworkInterfaceGetBSDName");
    load(type_, "SCNetworkInterfaceGetInterfaceType");
    load(display_name_, "SCNetworkInterfaceGetLocalizedDisplayName");
    load(count_, "CFArrayGetCount");
    load(value_, "CFArrayGetValueAtIndex");
    load(text_, "CFStringGetCString");
    load(release_, "CFRelease");
  }
  ~SystemConfiguration() {
    if (library_ != nullptr) ::dlclose(library_);
  }
  SystemConfiguration(const SystemConfiguration&) = delete;
  SystemConfiguration& operator=(const SystemConfiguration&) = delete;

  struct Interface {
    std::string type;          // "Ethernet", "IEEE80211", "Bridge"; empty when it does not know the interface
    std::string display_name;  // "Thunderbolt 1"
  };
  Interface find(std::string_view name) const {
    if (!complete_) return {};
    const void* all = copy_all_();
    if (all == nullptr) return {};
    Interface found;
    for (long i = 0; i < count_(all) && found.type.empty(); ++i) {
      const void* one = value_(all, i);
      if (text(bsd_name_(one)) == name) found = {text(type_(one)), text(display_name_(one))};
    }
    release_(all);
    return found;
  }

 private:
  template <class Function>
  void load(Function& function, const char* name) {
    function = library_ != nullptr ? reinterpret_cast<Function>(::dlsym(library_, name)) : nullptr;
    complete_ = complete_ && function != nullptr;
  }
  std::string text(const void* string) const {
    constexpr uint32_t kUtf8 = 0x08000100;  // kCFStringEncodingUTF8
    std::array<char, 256> out{};
    if (string == nullptr || text_(string, out.data(), static_cast<long>(out.size()), kUtf8) == 0) return {};
    return out.data();
  }

  void* library_;
  bool complete_ = true;
  const void* (*copy_all_)() = nullptr;
  const void* (*bsd_name_)(const void*) = nullptr;
  const void* (*type_)(const void*) = nullptr;
  const void* (*display_name_)(const void*) = nullptr;
  long (*count_)(const void*) = nullptr;
  const void* (*value_)(const void*, long) = nullptr;
  unsigned char (*text_)(const void*, char*, long, uint32_t) = nullptr;
  void (*release_)(const void*) = nullptr;
};

// From the routing table's list of interfaces (route(4)), whose first message is of the one asked for.
uint32_t speed_mbps(const std::string& name) {
  std::array<int, 6> path = {CTL_NET, PF_ROUTE,       0,
                             0,       NET_RT_IFLIST2, static_cast<int>(::if_nametoindex(name.c_str()))};
  std::array<char, 4096> answer{};
  size_t size = answer.size();
  if (path.back() == 0 ||
      ::sysctl(path.data(), static_cast<u_int>(path.size()), answer.data(), &size, nullptr, 0) != 0)
    return 0;
  if_msghdr2 message{};
  if (size < sizeof(message)) return 0;
  std::memcpy(&message, answer.data(), sizeof(message));
  if (message.ifm_type != RTM_IFINFO2) return 0;
  return static_cast<uint32_t>(std::min<uint64_t>(message.ifm_data.ifi_baudrate / 1'000'000, UINT32_MAX));
}

}  // namespace

InterfaceType interface_type(const std::string& name) {
  if (name.starts_with("lo")) return {InterfaceKind::loopback, 0};
  if (name.starts_with("utun") || name.starts_with("ipsec") || name.starts_with("gif"))
    return {InterfaceKind::tunnel, 0};
  static const SystemConfiguration configuration;
  const SystemConfiguration::Interface interface = configuration.find(name);
  // "Thunderbolt 1" and "Thunderbolt Bridge" in every language; "Thunderbolt Ethernet" is an adapter.
  const bool thunderbolt = interface.display_name.find("Thunderbolt") != std::string::npos &&
                           interface.display_name.find("Ethernet") == std::string::npos;
  if (thunderbolt) return {InterfaceKind::thunderbolt, speed_mbps(name)};
  if (interface.type == "IEEE80211") return {InterfaceKind::wifi, speed_mbps(name)};
  if (interface.type == "Ethernet" || interface.type == "Bridge" || interface.type == "Bond" ||
      interface.type == "VLAN")
    return {InterfaceKind::ethernet, speed_mbps(name)};
  return {};
}

}  // namespace shoal::detail
#endif
