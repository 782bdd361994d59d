// The numeric addresses by which other machines may reach this one, as the interfaces have them right now.
#pragma once

#include <string>
#include <vector>

namespace shoal::cluster {

// Best first: IPv4 of real interfaces, self-assigned IPv4 (a direct cable) and IPv6, then those of bridges
// and tunnels; without link-local IPv6 ones. On a machine without any network the loopback address alone, so
// that nodes on it reach each other.
std::vector<std::string> local_addresses();

}  // namespace shoal::cluster
