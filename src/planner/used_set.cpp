#include "planner/used_set.h"

#include <algorithm>
#include <bit>
#include <map>
#include <numeric>

namespace shoal::planner {

uint32_t UsedSets::bits_needed(const Problem& problem) {
  uint32_t bits = 0;
  for (const DeviceClass& c : problem.classes) bits += static_cast<uint32_t>(std::bit_width(c.count()));
  return bits;
}

UsedSets::UsedSets(const PassTable& table) : table_(&table) {
  const Problem& problem = table.problem();
  uint32_t shift = 0;
  for (const DeviceClass& c : problem.classes) {
    shift_.push_back(shift);
    width_.push_back(static_cast<uint32_t>(std::bit_width(c.count())));
    shift += width_.back();
  }
  seconds_per_byte_.assign(problem.classes.size(), kNever);
  least_head_seconds_ = kNever;
  for (uint32_t index = 0; index < table.groups().size(); ++index) {
    const Group& group = table.groups()[index];
    std::map<uint16_t, uint16_t> counts;
    for (uint16_t member : group.members) ++counts[member];
    counts_.emplace_back(counts.begin(), counts.end());
    uint64_t packed = 0;
    for (const auto& [c, devices] : counts) packed += uint64_t{devices} << shift_[c];
    packed_.push_back(packed);
    double per_byte = kNever;
    for (uint32_t kind = 0; kind < problem.kinds.size(); ++kind) {
      double bytes = static_cast<double>(problem.kinds[kind].memory_bytes());
      per_byte = std::min(per_byte, table.kind_seconds(index, kind) / std::max(1.0, bytes));
    }
    for (const auto& [c, devices] : counts) seconds_per_byte_[c] = std::min(seconds_per_byte_[c], per_byte);
    least_head_seconds_ = std::min(least_head_seconds_, table.head_seconds(index));
  }
  // A hair less, so that rounding cannot make the bound too high.
  for (double& seconds : seconds_per_byte_) seconds *= 1 - 1e-12;
  by_speed_.resize(problem.classes.size());
  std::iota(by_speed_.begin(), by_speed_.end(), uint16_t{0});
  std::sort(by_speed_.begin(), by_speed_.end(), [&](uint16_t a, uint16_t b) {
    const double fast = seconds_per_byte_[a], other = seconds_per_byte_[b];
    return fast != other ? fast < other : a < b;
  });
}

bool UsedSets::has_room(uint64_t used, uint32_t group) const {
  return std::all_of(counts_[group].begin(), counts_[group].end(), [&](const auto& taken) {
    return count(used, taken.first) + taken.second <= table_->problem().classes[taken.first].count();
  });
}

const std::vector<double>& UsedSets::least_seconds(uint64_t used) {
  auto [found, added] = known_.try_emplace(used);
  if (added) found->second = find_least_seconds(used);
  return found->second;
}

std::vector<double> UsedSets::find_least_seconds(uint64_t used) const {
  const Problem& problem = table_->problem();
  const uint32_t layers = problem.layer_count();
  std::vector<double> least(layers + 1, kNever);
  least[layers] = 0;
  size_t next = 0;
  double filled_bytes = 0, filled_seconds = 0, room = 0, per_byte = 0;  // `room` is left at `per_byte`
  for (uint32_t layer = layers; layer-- > 0;) {
    double needed =
        static_cast<double>(problem.memory_bytes_before[layers] - problem.memory_bytes_before[layer]);
    while (needed > filled_bytes) {
      double taken = std::min(room, needed - filled_bytes);
      filled_bytes += taken, filled_seconds += taken * per_byte, room -= taken;
      if (needed <= filled_bytes) break;
      if (next == by_speed_.size() || seconds_per_byte_[by_speed_[next]] == kNever) return least;
      uint16_t c = by_speed_[next++];
      uint64_t free = problem.classes[c].figures.free_memory_bytes;
      double each = static_cast<double>(free - std::min(free, problem.overhead_bytes));
      room = each * (problem.classes[c].count() - count(used, c));
      per_byte = seconds_per_byte_[c];
    }
    least[layer] = filled_seconds + least_head_seconds_;
  }
  return least;
}

}  // namespace shoal::planner
