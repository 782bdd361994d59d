#include "engine/cpu/expert_plan.h"

#include <algorithm>

#include "base/assert.h"

namespace shoal::engine::cpu {

ExpertPlan::ExpertPlan(std::span<const uint32_t> experts, uint32_t used, Held held)
    : used_(used),
      first_slot_(size_t{held.count} + 1),
      rows_(experts.size()),
      slots_(experts.size()),
      places_(experts.size()) {
  SHOAL_ASSERT(used > 0 && experts.size() % used == 0 && experts.size() <= UINT32_MAX);
  // An expert before the first wraps round, and is as far away as those behind the last.
  const auto bin_of = [&](uint32_t expert) { return std::min(expert - held.first, held.count); };
  for (uint32_t expert : experts) {
    if (bin_of(expert) < held.count) ++first_slot_[bin_of(expert) + 1];
  }
  for (uint32_t bin = 0; bin < held.count; ++bin) first_slot_[bin + 1] += first_slot_[bin];

  std::vector<uint32_t> next = first_slot_;
  for (size_t index = 0; index < experts.size(); ++index) {
    uint32_t slot = next[bin_of(experts[index])]++;
    size_t row = index / used;
    rows_[slot] = static_cast<uint32_t>(row);
    // Into the row's list, which stays sorted: rows have few experts.
    size_t place = index;
    for (; place > row * used && slots_[place - 1] > slot; --place) {
      slots_[place] = slots_[place - 1];
      places_[place] = places_[place - 1];
    }
    slots_[place] = slot;
    places_[place] = static_cast<uint32_t>(index % used);
  }
}

std::vector<ExpertPlan::Part> ExpertPlan::parts(uint32_t first, uint32_t limit) const {
  SHOAL_ASSERT(limit > 0);
  std::vector<Part> parts;
  auto after = std::upper_bound(first_slot_.begin(), first_slot_.end(), first);
  for (uint32_t slot = first; after != first_slot_.end(); ++after) {
    const uint32_t end = *after;
    if (end == slot) continue;
    const auto expert = static_cast<uint32_t>(after - first_slot_.begin() - 1);
    if (end - first > limit) {
      if (parts.empty()) parts.push_back({expert, slot, slot + limit});
      break;
    }
    parts.push_back({expert, slot, end});
    slot = end;
  }
  return parts;
}

}  // namespace shoal::engine::cpu
