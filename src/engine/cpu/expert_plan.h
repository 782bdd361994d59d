// Rows grouped by expert: a slot is one row at one expert, and slots are numbered by expert, then by row. So
// an expert's matrices meet all of its rows at once, and a row's slots ascend with its experts, which is the
// order its sum runs in.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace shoal::engine::cpu {

class ExpertPlan {
 public:
  struct Held {  // the experts that are here
    uint32_t first;
    uint32_t count;
  };
  // `experts` [rows * used], in any order within a row. Those that are not `held` get slots after all others,
  // which no part has.
  ExpertPlan(std::span<const uint32_t> experts, uint32_t used, Held held);

  struct Part {       // slots [first, end) of one expert
    uint32_t expert;  // counted from the first that is held
    uint32_t first;
    uint32_t end;
  };
  // The slots from `first` on, at most `limit`: whole experts, or a piece of one that has more. Empty after
  // the last.
  std::vector<Part> parts(uint32_t first, uint32_t limit) const;

  uint32_t slot_count() const { return first_slot_.back(); }  // of experts that are held
  const uint32_t* rows() const { return rows_.data(); }       // of slots
  // The slots of a row, ascending, and for each the place in the row's experts that it serves.
  std::span<const uint32_t> slots(uint32_t row) const {
    return std::span(slots_).subspan(row * used_, used_);
  }
  std::span<const uint32_t> places(uint32_t row) const {
    return std::span(places_).subspan(row * used_, used_);
  }

 private:
  size_t used_;
  std::vector<uint32_t> first_slot_;  // [held experts + 1]
  std::vector<uint32_t> rows_;
  std::vector<uint32_t> slots_;
  std::vector<uint32_t> places_;
};

}  // namespace shoal::engine::cpu
