#include "planner/rows.h"

#include <algorithm>

namespace shoal::planner {
namespace {

Row empty_row(uint32_t layers) {
  return {std::vector<double>(layers + 1, kNever), std::vector<uint16_t>(layers + 1, 0),
          std::vector<int32_t>(layers + 1, -1)};
}

}  // namespace

PassTable::PassTable(const Problem& problem, const std::vector<Group>& groups, Pass pass)
    : problem_(&problem), groups_(&groups), pass_(pass), hops_(groups.size() * groups.size(), {-1, 0, {}}) {
  std::vector<double> of_kind(problem.kinds.size());
  for (const Group& group : groups) {
    for (uint32_t kind = 0; kind < of_kind.size(); ++kind)
      of_kind[kind] = planner::layer_seconds(problem, group, kind, pass.rows);
    std::vector<double>& before = before_.emplace_back(1, 0.0);
    before.reserve(problem.layer_count() + 1);
    for (uint16_t kind : problem.kind_of) before.push_back(before.back() + of_kind[kind]);
    head_.push_back(planner::head_seconds(problem, group, pass.output_rows));
  }
}

const Hop& PassTable::hop(uint32_t from, uint32_t to) const {
  Hop& hop = hops_[size_t{from} * groups_->size() + to];
  if (hop.seconds < 0) hop = planner::hop(*problem_, (*groups_)[from], (*groups_)[to], pass_.rows);
  return hop;
}

void Arrivals::offer(const Row& row, double hop_seconds, int32_t whence) {
  for (size_t layer = 1; layer < seconds.size(); ++layer) {
    double arrival = row.seconds[layer] + hop_seconds;
    if (arrival < seconds[layer]) seconds[layer] = arrival, from[layer] = whence;
  }
}

Row first_stage(const PassTable& table, uint32_t group, double most_seconds) {
  uint32_t layers = table.problem().layer_count();
  const Group& ranks = table.groups()[group];
  Row row = empty_row(layers);
  for (uint32_t end = 1; end <= layers; ++end) {
    if (!ranks.fits(table.problem(), 0, end)) continue;
    double seconds = table.stage_seconds(group, 0, end);
    if (seconds <= most_seconds) row.seconds[end] = seconds;
  }
  return row;
}

// The best start for an end is a minimum over a window of starts, whose lower edge (memory, most_seconds)
// only moves up: O(layers). The last layer's stage also holds the head, so its window is looked at alone.
Row later_stage(const PassTable& table, uint32_t group, const Arrivals& arrivals, double most_seconds) {
  const uint32_t layers = table.problem().layer_count();
  const Group& ranks = table.groups()[group];
  const std::vector<double>& before = table.before(group);
  Row row = empty_row(layers);
  auto put = [&](uint32_t start, uint32_t end, double seconds) {
    row.seconds[end] = seconds;
    row.first_layer[end] = static_cast<uint16_t>(start);
    row.previous[end] = arrivals.from[start];
  };
  std::vector<uint16_t> window(layers + 1);  // starts, arrival less `before` rising
  size_t front = 0, back = 0;
  auto rest = [&](uint32_t start) { return arrivals.seconds[start] - before[start]; };
  uint32_t lowest = 1;
  for (uint32_t end = 2; end < layers; ++end) {
    if (arrivals.seconds[end - 1] < kNever) {
      while (back > front && rest(window[back - 1]) >= rest(end - 1)) --back;
      window[back++] = static_cast<uint16_t>(end - 1);
    }
    while (lowest < end && (ranks.furthest[lowest] < end || before[end] - before[lowest] > most_seconds))
      ++lowest;
    while (back > front && window[front] < lowest) ++front;
    if (back > front) put(window[front], end, rest(window[front]) + before[end]);
  }
  for (uint32_t start = 1; start < layers; ++start) {
    if (arrivals.seconds[start] == kNever || ranks.reaches_last[start] == 0) continue;
    double stage = table.stage_seconds(group, start, layers);
    if (stage <= most_seconds && arrivals.seconds[start] + stage < row.seconds[layers])
      put(start, layers, arrivals.seconds[start] + stage);
  }
  return row;
}

std::vector<Cut> cut_in_order(const PassTable& table, const std::vector<Cut>& order, double most_seconds) {
  std::vector<Row> rows;
  for (size_t stage = 0; stage < order.size(); ++stage) {
    if (stage == 0) {
      rows.push_back(first_stage(table, order[0].group, most_seconds));
      continue;
    }
    const Hop& hop = table.hop(order[stage - 1].group, order[stage].group);
    if (hop.busy_seconds > most_seconds) return {};
    Arrivals arrivals(table.problem().layer_count());
    arrivals.offer(rows.back(), hop.seconds, 0);
    rows.push_back(later_stage(table, order[stage].group, arrivals, most_seconds));
  }
  uint32_t end = table.problem().layer_count();
  if (rows.empty() || rows.back().seconds[end] == kNever) return {};
  std::vector<Cut> cuts = order;
  for (size_t stage = order.size(); stage-- > 0;) {
    cuts[stage].end_layer = end;
    end = cuts[stage].first_layer = stage == 0 ? 0 : rows[stage].first_layer[end];
  }
  return cuts;
}

}  // namespace shoal::planner
