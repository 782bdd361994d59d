// The Bus on Zenoh: peers find each other by themselves (zenoh_config.h), silence counts as having left after
// limits::kLeaseMs. All callbacks are posted to the executor, which is the node's event loop; nothing blocks
// it but start() (the session opens, some 10 ms) and stop() (good-byes, at most a second or so).
#pragma once

#include <functional>
#include <memory>

#include "cluster/bus.h"
#include "cluster/zenoh_config.h"

namespace shoal::cluster {

class ZenohBus final : public Bus {
 public:
  // Runs what it is given later on the thread that calls the Bus, in order.
  using Executor = std::function<void(std::function<void()>)>;

  ZenohBus(ZenohOptions options, NodeId self, Executor executor);
  ~ZenohBus() override;

  const NodeId& self() const override;
  Result<> start(BusListener& listener) override;
  void stop() override;
  void publish(std::string_view name, std::string_view value) override;
  void withdraw(std::string_view name) override;
  void send(const NodeId& receiver, std::string_view topic, ByteView payload) override;

 private:
  class Peers;
  std::shared_ptr<Peers> peers_;
};

}  // namespace shoal::cluster
