#ifdef __linux__
#include "base/network_interfaces.h"

namespace shoal::detail {

InterfaceType interface_type(const std::string& name) {
  return interface_type_from_sysfs("/sys/class/net", name);
}

}  // namespace shoal::detail
#endif
