// Which ranks of an instance's world talk to each other. Ranks are numbered stage by stage; the first of a
// stage is its leader. Leaders form a ring: hidden rows go from stage to stage, results from the last back to
// the first. The ranks of a stage (its tensor-parallel group) all talk to each other. Of every two that talk
// one calls: a leader calls the next one, within a group the lower rank calls the higher.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "cluster/facts.h"

namespace shoal::cluster {

struct RankLinks {
  uint32_t stage = 0, stage_count = 0;
  std::vector<uint32_t> group;             // of the stage, in order, the rank itself among them
  std::optional<uint32_t> previous, next;  // leaders with more than one stage only
  std::vector<uint32_t> calls;             // whom it calls, none twice
  std::vector<uint32_t> called_by;
};

// `rank` < fact.ranks.size(); the fact is one that instance_fact_from_json() takes.
RankLinks links_of(const InstanceFact& fact, uint32_t rank);

// The shares of a group, of a thousand; empty for a stage of one rank.
std::vector<uint32_t> shares_of(const InstanceFact& fact, const std::vector<uint32_t>& group);

// The ranks of each stage, in the fact.
std::vector<std::span<const RankFact>> stages_of(const InstanceFact& fact);
// How many stages the fact's ranks make.
uint32_t stage_count(const InstanceFact& fact);

}  // namespace shoal::cluster
