#include "cli/node_host.h"

#include <fmt/format.h>

namespace shoal::cli {
namespace {

constexpr Duration kLastWords = milliseconds(500);  // for clients to hear why their request ends

}  // namespace

NodeHost::NodeHost(boost::asio::io_context& io)
    : grace_timer_(std::make_unique<boost::asio::steady_timer>(io)) {}

NodeHost::~NodeHost() {
  server_.reset();
  api_.reset();
  node_.reset();
}

Result<std::unique_ptr<NodeHost>> NodeHost::start(boost::asio::io_context& io, Options options,
                                                  std::unique_ptr<cluster::Bus> bus) {
  auto host = std::unique_ptr<NodeHost>(new NodeHost(io));
  host->bus_ = std::move(bus);
  host->node_ = std::make_unique<serving::Node>(io, std::move(options.node), *host->bus_);
  host->api_ = std::make_unique<api::Api>(*host->node_, std::move(options.access));
  SHOAL_TRY(host->server_, api::HttpServer::start(io, options.http, *host->api_));
  host->api_->set_loopback_only(host->server_->loopback_only());
  SHOAL_TRY_VOID(host->node_->start());
  return host;
}

void NodeHost::stop(Duration grace, std::function<void()> done) {
  grace_timer_->expires_after(grace);
  grace_timer_->async_wait([this](const boost::system::error_code& cancelled) {
    if (!cancelled) node_->stop();
  });
  server_->stop(grace + kLastWords, [this, done = std::move(done)] {
    grace_timer_->cancel();
    node_->stop();
    done();
  });
}

}  // namespace shoal::cli
