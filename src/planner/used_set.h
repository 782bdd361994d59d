// How many devices of each class a partial placement uses, packed into 64 bits, and what the devices that are
// left could do at best.
#pragma once

#include <cstdint>
#include <unordered_map>
#include <vector>

#include "planner/rows.h"

namespace shoal::planner {

class UsedSets {
 public:
  explicit UsedSets(const PassTable& table);

  uint64_t of_group(uint32_t group) const { return packed_[group]; }
  bool has_room(uint64_t used, uint32_t group) const;

  // [layer_count + 1]: no way to compute the layers from here to the end with devices that `used` leaves
  // takes less. Infinite where they cannot hold them. Layers are taken as a fluid that fills the memory of
  // the fastest first; a device is as fast as the fastest group it could be in; hops are free.
  // Remembered, so that later sweeps over the same table have it at once.
  const std::vector<double>& least_seconds(uint64_t used);

  static uint32_t bits_needed(const Problem& problem);

 private:
  std::vector<double> find_least_seconds(uint64_t used) const;
  uint32_t count(uint64_t used, uint32_t c) const {
    return static_cast<uint32_t>(used >> shift_[c] & ((uint64_t{1} << width_[c]) - 1));
  }

  const PassTable* table_;
  std::vector<uint32_t> shift_, width_;                             // [class]
  std::vector<uint64_t> packed_;                                    // [group]
  std::vector<std::vector<std::pair<uint16_t, uint16_t>>> counts_;  // [group]: (class, devices of it)
  std::vector<double> seconds_per_byte_;                            // [class]
  std::vector<uint16_t> by_speed_;                                  // classes
  double least_head_seconds_ = 0;
  std::unordered_map<uint64_t, std::vector<double>> known_;
};

}  // namespace shoal::planner
