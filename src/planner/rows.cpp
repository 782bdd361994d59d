#include "planner/rows.h"

#include <algorithm>
#include <array>

#include "base/limits.h"

namespace shoal::planner {
PassTable::PassTable(const Problem& problem, const std::vector<Group>& groups, Pass pass)
    : problem_(&problem), groups_(&groups), pass_(pass), hops_(groups.size() * groups.size(), {-1, 0, {}}) {
  std::vector<double> of_kind(problem.kinds.size());
  for (const Group& group : groups) {
    for (uint32_t kind = 0; kind < of_kind.size(); ++kind)
      of_kind[kind] = planner::layer_seconds(problem, group, kind, pass.rows);
    std::vector<double>& before = before_.emplace_back(1, 0.0);
    before.reserve(problem.layer_count() + 1);
    for (uint16_t kind : problem.kind_of) before.push_back(before.back() + of_kind[kind]);
    kinds_.push_back(of_kind);
    head_.push_back(planner::head_seconds(problem, group, pass.output_rows));
  }
}

const Hop& PassTable::hop(uint32_t from, uint32_t to) const {
  Hop& hop = hops_[size_t{from} * groups_->size() + to];
  if (hop.seconds < 0) hop = planner::hop(*problem_, (*groups_)[from], (*groups_)[to], pass_.rows);
  return hop;
}

void Row::reset(uint32_t layer_count) {
  cells.resize(layer_count + 1);
  for (uint32_t layer = low; layer <= high; ++layer) cells[layer] = {};
  low = layer_count + 1, high = 0;
}

void Row::put(uint32_t end, double seconds, uint32_t first_layer, int32_t previous) {
  cells[end] = {seconds, previous, static_cast<uint16_t>(first_layer)};
  low = std::min(low, end), high = std::max(high, end);
}

void Arrivals::reset(uint32_t layer_count) {
  seconds.resize(layer_count + 1, kNever);
  from.resize(layer_count + 1, -1);
  for (uint32_t layer = low; layer <= high; ++layer) seconds[layer] = kNever, from[layer] = -1;
  low = layer_count + 1, high = 0;
}

void Arrivals::offer(const Row& row, double hop_seconds, int32_t whence) {
  low = std::min(low, row.low), high = std::max(high, row.high);
  for (uint32_t layer = row.low; layer <= row.high; ++layer) {
    double arrival = row.cells[layer].seconds + hop_seconds;
    if (arrival < seconds[layer]) seconds[layer] = arrival, from[layer] = whence;
  }
}

void first_stage(const PassTable& table, uint32_t group, double most_seconds, Row& row) {
  const Problem& problem = table.problem();
  const Group& ranks = table.groups()[group];
  row.reset(problem.layer_count());
  for (uint32_t end = 1; end <= ranks.furthest[0]; ++end) {
    double seconds = table.stage_seconds(group, 0, end);
    if (seconds > most_seconds) return;
    row.put(end, seconds, 0, -1);
  }
  double whole = table.stage_seconds(group, 0, problem.layer_count());
  if (ranks.reaches_last[0] != 0 && whole <= most_seconds) row.put(problem.layer_count(), whole, 0, -1);
}

// The best start for an end is a minimum over a window of starts, whose lower edge (memory, most_seconds)
// only moves up: O(layers). The last layer's stage also holds the head, so its window is looked at alone.
void later_stage(const PassTable& table, uint32_t group, const Arrivals& arrivals, double most_seconds,
                 Row& row) {
  const uint32_t layers = table.problem().layer_count();
  const Group& ranks = table.groups()[group];
  const std::vector<double>& before = table.before(group);
  row.reset(layers);
  std::array<uint16_t, limits::kMaxLayers> window;  // starts, arrival less `before` rising
  size_t front = 0, back = 0;
  auto rest = [&](uint32_t start) { return arrivals.seconds[start] - before[start]; };
  uint32_t lowest = arrivals.low;
  for (uint32_t end = arrivals.low + 1; end < layers; ++end) {
    if (arrivals.seconds[end - 1] < kNever) {
      while (back > front && rest(window[back - 1]) >= rest(end - 1)) --back;
      window[back++] = static_cast<uint16_t>(end - 1);
    }
    while (lowest < end && (ranks.furthest[lowest] < end || before[end] - before[lowest] > most_seconds))
      ++lowest;
    while (back > front && window[front] < lowest) ++front;
    if (back == front && end > arrivals.high) break;
    if (back > front)
      row.put(end, rest(window[front]) + before[end], window[front], arrivals.from[window[front]]);
  }
  for (uint32_t start = layers; start-- > arrivals.low;) {
    double stage = table.stage_seconds(group, start, layers);
    if (stage > most_seconds || ranks.reaches_last[start] == 0) break;  // and longer ones even more so
    if (arrivals.seconds[start] + stage < row.cells[layers].seconds)
      row.put(layers, arrivals.seconds[start] + stage, start, arrivals.from[start]);
  }
}

std::vector<Cut> cut_in_order(const PassTable& table, const std::vector<Cut>& order, double most_seconds) {
  const uint32_t layers = table.problem().layer_count();
  std::vector<Row> rows(order.size());
  for (size_t stage = 0; stage < order.size(); ++stage) {
    if (stage == 0) {
      first_stage(table, order[0].group, most_seconds, rows[0]);
      continue;
    }
    const Hop& hop = table.hop(order[stage - 1].group, order[stage].group);
    if (hop.busy_seconds > most_seconds) return {};
    Arrivals arrivals;
    arrivals.reset(layers);
    arrivals.offer(rows[stage - 1], hop.seconds, 0);
    later_stage(table, order[stage].group, arrivals, most_seconds, rows[stage]);
  }
  uint32_t end = layers;
  if (rows.empty() || rows.back().cells[end].seconds == kNever) return {};
  std::vector<Cut> cuts = order;
  for (size_t stage = order.size(); stage-- > 0;) {
    cuts[stage].end_layer = end;
    end = cuts[stage].first_layer = rows[stage].cells[end].first_layer;
  }
  return cuts;
}

}  // namespace shoal::planner
