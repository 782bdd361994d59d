#ifdef __APPLE__
#include <array>
#include <dlfcn.h>
#include <net/if.h>
#include <net/if_media.h>
#include <string_view>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "base/file.h"
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

  // "Thunderbolt 1" for "en2"; empty when it does not know the interface.
  std::string display_name(std::string_view interface) const {
    if (!complete_) return {};
    const void* all = copy_all_();
    if (all == nullptr) return {};
    std::string found;
    for (long i = 0; i < count_(all) && found.empty(); ++i) {
      const void* one = value_(all, i);
      if (text(bsd_name_(one)) == interface) found = text(display_name_(one));
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
  const void* (*display_name_)(const void*) = nullptr;
  long (*count_)(const void*) = nullptr;
  const void* (*value_)(const void*, long) = nullptr;
  unsigned char (*text_)(const void*, char*, long, uint32_t) = nullptr;
  void (*release_)(const void*) = nullptr;
};

uint32_t ethernet_speed(int active) {
  switch (IFM_SUBTYPE(active)) {
    case IFM_10_T:
      return 10;
    case IFM_100_TX:
      return 100;
    case IFM_1000_T:
    case IFM_1000_SX:
      return 1000;
#ifdef IFM_2500_T
    case IFM_2500_T:
      return 2500;
    case IFM_5000_T:
      return 5000;
#endif
    case IFM_10G_T:
    case IFM_10G_SR:
    case IFM_10G_LR:
      return 10'000;
    default:
      return 0;
  }
}

}  // namespace

InterfaceType interface_type(const std::string& name) {
  if (name.starts_with("lo")) return {InterfaceKind::loopback, 0};
  if (name.starts_with("utun") || name.starts_with("ipsec") || name.starts_with("gif"))
    return {InterfaceKind::tunnel, 0};
  static const SystemConfiguration configuration;
  const std::string display_name = configuration.display_name(name);
  if (display_name.find("Thunderbolt") != std::string::npos &&
      display_name.find("Ethernet") == std::string::npos)
    return {InterfaceKind::thunderbolt, 0};
  const FileDescriptor socket(::socket(AF_INET, SOCK_DGRAM, 0));
  ifmediareq request{};
  name.copy(request.ifm_name, sizeof(request.ifm_name) - 1);
  if (!socket.valid() || ::ioctl(socket.get(), SIOCGIFMEDIA, &request) != 0) return {};
  if (IFM_TYPE(request.ifm_current) == IFM_IEEE80211) return {InterfaceKind::wifi, 0};
  if (IFM_TYPE(request.ifm_current) == IFM_ETHER)
    return {InterfaceKind::ethernet, ethernet_speed(request.ifm_active)};
  return {};
}

}  // namespace shoal::detail
#endif
