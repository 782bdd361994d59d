#include "worker/world_links.h"

#include <algorithm>
#include <fmt/format.h>

namespace shoal::worker {
namespace {

constexpr Duration kConnectTimeout = seconds(10);
constexpr Duration kAcceptTimeout = seconds(20);  // a caller's node may tell it later than ours told us

TimePoint in(Duration duration) {
  return std::chrono::steady_clock::now() + duration;
}

}  // namespace

std::vector<link::Link*> WorldLinks::all() const {
  std::vector<link::Link*> links;
  for (link::Link* link : {next.get(), previous.get()}) {
    if (link) links.push_back(link);
  }
  for (const auto& link : group) {
    if (link) links.push_back(link.get());
  }
  return links;
}

Result<std::unique_ptr<LinkBuilder>> LinkBuilder::listen(const LoadRequest& load) {
  std::unique_ptr<LinkBuilder> builder(new LinkBuilder(load));
  if (load.peers.called_by.empty()) return builder;
  SHOAL_TRY(builder->listener_, link::TcpLinkListener::open(load.listen_addresses));
  builder->callers_ =
      std::async(std::launch::async, [builder = builder.get()] { return builder->accept_all(); });
  return builder;
}

link::Credentials LinkBuilder::credentials(uint32_t peer_rank) const {
  return {load_.instance, load_.epoch, load_.secret, load_.rank, peer_rank};
}

// One after the other: whoever comes early is turned away and calls again.
Result<LinkBuilder::Links> LinkBuilder::accept_all() {
  Links links;
  for (const uint32_t peer : load_.peers.called_by) {
    awaited_ = peer;
    SHOAL_TRY(links[peer], listener_->accept(credentials(peer), TimePoint::max()));
  }
  return links;
}

Result<LinkBuilder::Links> LinkBuilder::await_callers() {
  if (!callers_.valid()) return Links();
  if (callers_.wait_until(in(kAcceptTimeout)) == std::future_status::ready) return callers_.get();
  return fail(ErrorCode::timeout, fmt::format("rank {} did not connect to rank {} within {:.0f} s",
                                              awaited_.load(), load_.rank, to_seconds(kAcceptTimeout)));
}

Result<> LinkBuilder::call(const ConnectRequest& request) {
  if (std::ranges::find(load_.peers.calls, request.peer) == load_.peers.calls.end() ||
      calls_.contains(request.peer)) {
    return fail(ErrorCode::invalid_argument,
                fmt::format("rank {} is not to call rank {}", load_.rank, request.peer));
  }
  std::vector<SocketAddress> addresses;
  for (const Endpoint& endpoint : request.endpoints) {
    SHOAL_TRY(SocketAddress address, SocketAddress::parse(endpoint.address, endpoint.port));
    addresses.push_back(address);
  }
  calls_[request.peer] = std::async(std::launch::async, [addresses, credentials = credentials(request.peer)] {
    return link::connect_tcp_link(addresses, credentials, in(kConnectTimeout));
  });
  return {};
}

Result<WorldLinks> LinkBuilder::finish() {
  Links called;
  for (auto& [peer, call] : calls_) {
    SHOAL_TRY(called[peer], call.get());
  }
  SHOAL_TRY(Links callers, await_callers());
  const RankPeers& peers = load_.peers;
  WorldLinks links;
  if (peers.next) links.next = std::move(called[*peers.next]);
  if (peers.previous) links.previous = std::move(callers[*peers.previous]);
  for (const uint32_t rank : peers.group) {
    links.group.push_back(std::move(rank > load_.rank ? called[rank] : callers[rank]));
  }
  return links;
}

}  // namespace shoal::worker
