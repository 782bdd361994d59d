// The inner step of the searches: from "the best way to be about to start a stage at each layer" to "the best
// way to end a stage of this group at each layer", in time linear in the layers.
#pragma once

#include <cstdint>
#include <limits>
#include <vector>

#include "planner/candidates.h"

namespace shoal::planner {

inline constexpr double kNever = std::numeric_limits<double>::infinity();

// Times of one kind of pass for all groups of a set.
class PassTable {
 public:
  PassTable(const Problem& problem, const std::vector<Group>& groups, Pass pass);

  const Problem& problem() const { return *problem_; }
  const std::vector<Group>& groups() const { return *groups_; }
  Pass pass() const { return pass_; }
  double layers_seconds(uint32_t group, uint32_t first_layer, uint32_t end_layer) const {
    return before_[group][end_layer] - before_[group][first_layer];
  }
  double stage_seconds(uint32_t group, uint32_t first_layer, uint32_t end_layer) const {
    double seconds = layers_seconds(group, first_layer, end_layer);
    return end_layer == problem_->layer_count() ? seconds + head_[group] : seconds;
  }
  double kind_seconds(uint32_t group, uint32_t kind) const { return kinds_[group][kind]; }
  double head_seconds(uint32_t group) const { return head_[group]; }
  const std::vector<double>& before(uint32_t group) const { return before_[group]; }
  const Hop& hop(uint32_t from, uint32_t to) const;  // computed when first asked for

 private:
  const Problem* problem_;
  const std::vector<Group>* groups_;
  Pass pass_;
  std::vector<std::vector<double>> before_;  // [group][layer_count + 1]: seconds of the layers before
  std::vector<std::vector<double>> kinds_;   // [group][kind]: seconds of a layer
  std::vector<double> head_;                 // [group]
  mutable std::vector<Hop> hops_;            // [from * groups + to]; negative: not computed yet
};

// One stage of a placement.
struct Cut {
  uint32_t group = 0;
  uint32_t first_layer = 0, end_layer = 0;
};

// The best way to end a stage at a layer.
struct Cell {
  double seconds = kNever;   // infinite: impossible
  int32_t previous = -1;     // what the caller gave to Arrivals::offer for the row before
  uint16_t first_layer = 0;  // where the stage began
};

struct Row {
  std::vector<Cell> cells;     // [layer_count + 1]
  uint32_t low = 1, high = 0;  // ends outside [low, high] are impossible

  void reset(uint32_t layer_count);
  void put(uint32_t end, double seconds, uint32_t first_layer, int32_t previous);
};

// The best way to be about to start a stage at each layer, hop included.
struct Arrivals {
  std::vector<double> seconds;  // [layer_count + 1]
  std::vector<int32_t> from;    // [layer_count + 1]
  uint32_t low = 1, high = 0;   // layers outside [low, high] are never arrived at

  void reset(uint32_t layer_count);
  void offer(const Row& row, double hop_seconds, int32_t whence);
};

// Into `row`, whose memory is reused. No stage may take longer than `most_seconds`.
void first_stage(const PassTable& table, uint32_t group, double most_seconds, Row& row);
void later_stage(const PassTable& table, uint32_t group, const Arrivals& arrivals, double most_seconds,
                 Row& row);

// The fastest cut for these groups in this order, no stage and no link busier than `most_seconds`; empty when
// there is none. First and end layers of `order` are not looked at.
std::vector<Cut> cut_in_order(const PassTable& table, const std::vector<Cut>& order, double most_seconds);

}  // namespace shoal::planner
