#include "cli/cluster_bus.h"

#include "cli/solo_bus.h"

namespace shoal::cli {

Result<std::unique_ptr<cluster::Bus>> make_cluster_bus(boost::asio::io_context& io, const ServeOptions&,
                                                       const cluster::NodeId& self) {
  return std::make_unique<SoloBus>(io, self);
}

}  // namespace shoal::cli
