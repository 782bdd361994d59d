// The bus that joins a node to its cluster, made from the flags of `serve`.
#pragma once

#include <boost/asio/io_context.hpp>
#include <memory>

#include "cli/serve_command.h"
#include "cluster/bus.h"

namespace shoal::cli {

std::unique_ptr<cluster::Bus> make_cluster_bus(boost::asio::io_context& io, const ServeOptions& options,
                                               const cluster::NodeId& self);

}  // namespace shoal::cli
