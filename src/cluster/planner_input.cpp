#include "cluster/planner_input.h"

#include <algorithm>
#include <array>
#include <utility>

namespace shoal::cluster {
namespace {

planner::LinkKind link_kind(std::string_view text) {
  using planner::LinkKind;
  constexpr std::array<std::pair<std::string_view, LinkKind>, 6> kKinds = {
      {{"loopback", LinkKind::loopback},
       {"ethernet", LinkKind::ethernet},
       {"roce", LinkKind::ethernet},
       {"wifi", LinkKind::wifi},
       {"thunderbolt", LinkKind::thunderbolt},
       {"infiniband", LinkKind::infiniband}}};
  const auto found = std::ranges::find(kKinds, text, &std::pair<std::string_view, planner::LinkKind>::first);
  return found == kKinds.end() ? LinkKind::unknown : found->second;
}

}  // namespace

std::vector<planner::LinkFigures> measured_links(const std::vector<planner::Device>& devices,
                                                 const std::map<NodeId, Member>& members) {
  std::map<NodeId, uint32_t, std::less<>> index;
  for (uint32_t i = 0; i < devices.size(); ++i) index.emplace(devices[i].node, i);
  std::map<std::pair<uint32_t, uint32_t>, planner::LinkFigures> links;
  std::vector<planner::LinkFigures> reversed;
  for (const auto& [from, device] : index) {
    const auto member = members.find(from);
    if (member == members.end() || !member->second.fact) continue;
    for (const LinkFact& fact : best_links(member->second.fact->links)) {
      const auto to = index.find(fact.peer);
      if (to == index.end() || to->second == device || fact.bytes_per_second <= 0) continue;
      planner::LinkFigures link;
      link.from = device, link.to = to->second;
      link.round_trip_seconds = fact.rtt_p50_us / 1e6;
      link.round_trip_p99_seconds = fact.rtt_p99_us / 1e6;
      link.bytes_per_second = fact.bytes_per_second;
      link.kind = link_kind(fact.kind);
      links.emplace(std::pair(link.from, link.to), link);
      std::swap(link.from, link.to);
      reversed.push_back(link);
    }
  }
  for (const planner::LinkFigures& link : reversed) links.emplace(std::pair(link.from, link.to), link);
  std::vector<planner::LinkFigures> result;
  for (const auto& [pair, link] : links) result.push_back(link);
  return result;
}

WeightRate rate_with(const NodeFact& node, std::string_view weights) {
  const auto found = std::ranges::find(node.weight_rates, weights, &WeightRate::weights);
  if (found != node.weight_rates.end()) return *found;
  return {std::string(weights), node.prefill_flops_per_second, node.decode_bytes_per_second};
}

}  // namespace shoal::cluster
