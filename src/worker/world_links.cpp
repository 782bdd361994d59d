#include "worker/ring.h"

#include <fmt/format.h>

namespace shoal::worker {
namespace {

constexpr Duration kConnectTimeout = seconds(10);
constexpr Duration kAcceptTimeout =
    seconds(20);  // the previous rank's node may tell it later than ours told us

TimePoint in(Duration duration) {
  return std::chrono::steady_clock::now() + duration;
}

}  // namespace

RingBuilder::RingBuilder(link::TcpLinkListener listener, const LoadRequest& load)
    : listener_(std::move(listener)), load_(load) {}

Result<std::unique_ptr<RingBuilder>> RingBuilder::listen(const LoadRequest& load) {
  SHOAL_TRY(auto listener, link::TcpLinkListener::open(load.listen_addresses));
  std::unique_ptr<RingBuilder> ring(new RingBuilder(std::move(listener), load));
  ring->accepted_ = std::async(std::launch::async, [builder = ring.get()] {
    uint32_t previous = (builder->load_.rank + builder->load_.rank_count - 1) % builder->load_.rank_count;
    return builder->listener_.accept(builder->credentials(previous), TimePoint::max());
  });
  return ring;
}

link::Credentials RingBuilder::credentials(uint32_t peer_rank) const {
  return {load_.instance, load_.epoch, load_.secret, load_.rank, peer_rank};
}

Result<RingLinks> RingBuilder::connect(const std::vector<Endpoint>& next) {
  std::vector<SocketAddress> addresses;
  for (const Endpoint& endpoint : next) {
    SHOAL_TRY(SocketAddress address, SocketAddress::parse(endpoint.address, endpoint.port));
    addresses.push_back(address);
  }
  RingLinks links;
  uint32_t next_rank = (load_.rank + 1) % load_.rank_count;
  SHOAL_TRY(links.next, link::connect_tcp_link(addresses, credentials(next_rank), in(kConnectTimeout)));
  if (accepted_.wait_until(in(kAcceptTimeout)) != std::future_status::ready) {
    uint32_t previous = (load_.rank + load_.rank_count - 1) % load_.rank_count;
    return fail(ErrorCode::timeout, fmt::format("rank {} did not connect to rank {} within {:.0f} s",
                                                previous, load_.rank, to_seconds(kAcceptTimeout)));
  }
  SHOAL_TRY(links.previous, accepted_.get());
  return links;
}

}  // namespace shoal::worker
