// A group: the ranks of a possible stage with their shares, what they hold and how long a layer takes them. A
// group of one rank is a device alone. Members are classes of devices (problem.h), so one group stands for
// all that are made of equals.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "planner/problem.h"
#include "planner/shares.h"

namespace shoal::planner {

// What ranks get their shares by.
enum class ShareBy : uint8_t {
  decode_speed,
  prefill_speed,
  speed_within_memory,  // decode speed, cut down where a rank could not hold its share of all layers
  memory,
  whole_heads,  // decode speed, in steps of a kv head: where these are few, nobody waits for a rounded one
};

struct Group {
  std::vector<uint16_t> members;                     // a class per rank; ranks[0] leads
  std::vector<uint32_t> shares;                      // [rank], per mille
  std::vector<std::vector<RankPart>> parts;          // [kind][rank]
  Path slowest;                                      // the worst figures between any two ranks
  std::vector<std::vector<uint64_t>> memory_before;  // [rank][layer_count + 1]
  std::vector<uint16_t> furthest;  // [first layer]: the largest end below layer_count that fits, or `first`
  std::vector<char> reaches_last;  // [first layer]: whether the stage up to the last layer fits

  uint32_t ranks() const { return static_cast<uint32_t>(members.size()); }
  double share(uint32_t rank) const { return shares[rank] / 1000.0; }
  bool fits(const Problem& problem, uint32_t first_layer, uint32_t end_layer) const {
    return end_layer == problem.layer_count() ? reaches_last[first_layer] != 0
                                              : end_layer <= furthest[first_layer];
  }
  uint64_t memory_bytes(const Problem& problem, uint32_t rank, uint32_t first_layer,
                        uint32_t end_layer) const;
};

// nullopt when the layers cannot be shared by so many, or not one layer fits. `members` in any order.
std::optional<Group> make_group(const Problem& problem, std::vector<uint16_t> members, ShareBy share_by);
std::optional<Group> make_group(const Problem& problem, std::vector<uint16_t> members,
                                std::vector<uint32_t> shares);

// What a pass of rows through the stages is: decode of a batch, or a chunk of a prompt.
struct Pass {
  double rows = 1;
  double output_rows = 1;  // that need logits
};

// Of one rank alone, without waiting for others.
double rank_layer_seconds(const Problem& problem, const Group& group, uint32_t rank, uint32_t kind,
                          double rows);
double rank_head_seconds(const Problem& problem, const Group& group, uint32_t rank, double rows);
double all_reduce_seconds(const Problem& problem, const Group& group, uint32_t kind, double rows);
// The slowest rank, and the sums between ranks.
double layer_seconds(const Problem& problem, const Group& group, uint32_t kind, double rows);
double head_seconds(const Problem& problem, const Group& group, double rows);
double stage_seconds(const Problem& problem, const Group& group, uint32_t first_layer, uint32_t end_layer,
                     Pass pass);

// A row of hidden values to all ranks of the next stage, each from the rank that reaches it soonest.
struct Hop {
  double seconds = 0;       // until it is there
  double busy_seconds = 0;  // that the link is taken
  LinkKind kind = LinkKind::unknown;
};
Hop hop(const Problem& problem, const Group& from, const Group& to, double rows);
// A sampled token from the last stage's leader to the first stage's.
double return_seconds(const Problem& problem, const Group& last, const Group& first);

}  // namespace shoal::planner
