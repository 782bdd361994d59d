// A node with its HTTP API on one event loop: what `serve` and `run` have in common.
#pragma once

#include <boost/asio/io_context.hpp>
#include <functional>
#include <memory>

#include "api/api.h"
#include "api/http_server.h"
#include "base/result.h"
#include "cluster/bus.h"
#include "serving/node.h"

namespace shoal::cli {

class NodeHost {
 public:
  struct Options {
    api::HttpServerOptions http;
    api::AccessRules access;
    serving::NodeOptions node;
  };
  // Binds the API's port first, so that a port in use costs nothing else; then starts the node on `bus`.
  // All calls are made on the thread that runs `io`, or before it runs.
  static Result<std::unique_ptr<NodeHost>> start(boost::asio::io_context& io, Options options,
                                                 std::unique_ptr<cluster::Bus> bus);
  ~NodeHost();

  serving::Node& node() { return *node_; }
  uint16_t port() const { return server_->port(); }

  // Lets requests in progress end for `grace`, ends those that do not, leaves the cluster; then calls `done`.
  void stop(Duration grace, std::function<void()> done);

 private:
  explicit NodeHost(boost::asio::io_context& io);

  std::unique_ptr<cluster::Bus> bus_;
  std::unique_ptr<serving::Node> node_;
  std::unique_ptr<api::Api> api_;
  std::unique_ptr<api::HttpServer> server_;
  std::unique_ptr<boost::asio::steady_timer> grace_timer_;
};

}  // namespace shoal::cli
