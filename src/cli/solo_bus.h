// The bus of a node that wants no company: facts reach nobody, messages reach only ourselves.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <memory>
#include <string>
#include <utility>

#include "cluster/bus.h"

namespace shoal::cli {

class SoloBus final : public cluster::Bus {
 public:
  SoloBus(boost::asio::io_context& io, cluster::NodeId self) : io_(io), self_(std::move(self)) {}

  const cluster::NodeId& self() const override { return self_; }
  Result<> start(cluster::BusListener& listener) override {
    listener_ = std::make_shared<cluster::BusListener*>(&listener);
    return {};
  }
  void stop() override { listener_.reset(); }
  void publish(std::string_view, std::string_view) override {}
  void withdraw(std::string_view) override {}
  void send(const cluster::NodeId& receiver, std::string_view topic, ByteView payload) override {
    if (receiver != self_) return;
    boost::asio::post(io_, [weak = std::weak_ptr(listener_), self = self_, name = std::string(topic),
                            copy = Bytes(payload.begin(), payload.end())] {
      if (const auto listener = weak.lock()) (*listener)->on_message(self, name, copy);
    });
  }

 private:
  boost::asio::io_context& io_;
  cluster::NodeId self_;
  std::shared_ptr<cluster::BusListener*> listener_;  // gone after stop(): messages under way are dropped
};

}  // namespace shoal::cli
