// This machine's addresses, as other nodes may reach it.
#pragma once

#include <string>
#include <vector>

namespace shoal::serving {

// Numeric addresses of the interfaces that are up, IPv4 before IPv6, link-local ones left out; the loopback
// address when there is nothing else.
std::vector<std::string> reachable_addresses();

}  // namespace shoal::serving
