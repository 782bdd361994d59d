#include "cluster/world.h"

#include "base/assert.h"

namespace shoal::cluster {
namespace {

bool begins_stage(const InstanceFact& fact, uint32_t rank) {
  return rank == 0 || fact.ranks[rank].first_layer != fact.ranks[rank - 1].first_layer;
}

std::vector<uint32_t> leaders_of(const InstanceFact& fact) {
  std::vector<uint32_t> leaders;
  for (uint32_t rank = 0; rank < fact.ranks.size(); ++rank) {
    if (begins_stage(fact, rank)) leaders.push_back(rank);
  }
  return leaders;
}

}  // namespace

RankLinks links_of(const InstanceFact& fact, uint32_t rank) {
  SHOAL_ASSERT(rank < fact.ranks.size());
  const std::vector<uint32_t> leaders = leaders_of(fact);
  RankLinks links;
  links.stage_count = static_cast<uint32_t>(leaders.size());
  while (links.stage + 1 < leaders.size() && leaders[links.stage + 1] <= rank) ++links.stage;
  const bool is_last = links.stage + 1 == leaders.size();
  const uint32_t end = is_last ? static_cast<uint32_t>(fact.ranks.size()) : leaders[links.stage + 1];
  for (uint32_t other = leaders[links.stage]; other < end; ++other) {
    links.group.push_back(other);
    if (other != rank) (other > rank ? links.calls : links.called_by).push_back(other);
  }
  if (rank == leaders[links.stage] && leaders.size() > 1) {
    links.next = leaders[is_last ? 0 : links.stage + 1];
    links.previous = leaders[(links.stage + leaders.size() - 1) % leaders.size()];
    links.calls.push_back(*links.next);
    links.called_by.push_back(*links.previous);
  }
  return links;
}

std::vector<uint32_t> shares_of(const InstanceFact& fact, const std::vector<uint32_t>& group) {
  std::vector<uint32_t> shares;
  for (const uint32_t rank : group) {
    if (group.size() > 1) shares.push_back(fact.ranks[rank].share);
  }
  return shares;
}

std::vector<std::span<const RankFact>> stages_of(const InstanceFact& fact) {
  const std::vector<uint32_t> leaders = leaders_of(fact);
  std::vector<std::span<const RankFact>> stages;
  for (size_t stage = 0; stage < leaders.size(); ++stage) {
    const size_t end = stage + 1 < leaders.size() ? leaders[stage + 1] : fact.ranks.size();
    stages.push_back(std::span(fact.ranks).subspan(leaders[stage], end - leaders[stage]));
  }
  return stages;
}

uint32_t stage_count(const InstanceFact& fact) {
  return static_cast<uint32_t>(leaders_of(fact).size());
}

}  // namespace shoal::cluster
