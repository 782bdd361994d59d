#include "cli/cluster_bus.h"

#include <boost/asio/post.hpp>
#include <fmt/format.h>

#include "cluster/zenoh_bus.h"

namespace shoal::cli {
namespace {

// The address, the port, both or nothing, as ZenohOptions::listen wants it.
std::string listen_at(const ServeOptions& options) {
  const bool named = !options.listen.empty() && !is_any_address(options.listen);
  const std::string address = options.listen == "localhost" ? "127.0.0.1"
                              : named                       ? options.listen
                                                            : "0.0.0.0";
  if (options.cluster_port == 0) return named ? address : std::string();
  return address.contains(':') ? fmt::format("[{}]:{}", address, options.cluster_port)
                               : fmt::format("{}:{}", address, options.cluster_port);
}

}  // namespace

std::unique_ptr<cluster::Bus> make_cluster_bus(boost::asio::io_context& io, const ServeOptions& options,
                                               const cluster::NodeId& self) {
  cluster::ZenohOptions zenoh;
  zenoh.cluster = options.cluster;
  zenoh.peers = options.peers;
  zenoh.listen = listen_at(options);
  return std::make_unique<cluster::ZenohBus>(
      std::move(zenoh), self, [&io](std::function<void()> task) { boost::asio::post(io, std::move(task)); });
}

}  // namespace shoal::cli
