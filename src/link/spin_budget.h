// How long a thread that waits for bytes looks for them before it sleeps. Sleeping costs some 20 µs a hop, so
// looking pays, but only on a core that nobody else wants. The budget learns which it is: while it looks, the
// thread offers its core to others now and then, and a long pause between two looks tells that one took it.
// Pure: the caller brings the time.
#pragma once

#include <algorithm>
#include <utility>

#include "base/clock.h"

namespace shoal::link {

class SpinBudget {
 public:
  // `most` is the budget of a thread whose core nobody else wants.
  explicit SpinBudget(Duration most) : most_(most), budget_(most) {}

  void begin(TimePoint now) { started_ = last_look_ = last_offer_ = now; }
  // To be asked between looks; false: sleep. A pause since the last look quarters the budget.
  bool may_look_again(TimePoint now) {
    if (now - std::exchange(last_look_, now) > kPause) {
      budget_ = std::max(budget_ / 4, std::min(most_, kLeast));
      disturbed_ = true;
    }
    return now - started_ < budget_;
  }
  // Whether it is time to offer the core to others.
  bool offer_core(TimePoint now) {
    if (now - last_offer_ < kOfferEvery) return false;
    last_offer_ = now;
    return true;
  }
  // A wait without disturbance wins a part back.
  void end() {
    if (!std::exchange(disturbed_, false)) budget_ = std::min(most_, budget_ + most_ / 64);
  }

  Duration budget() const { return budget_; }

 private:
  static constexpr Duration kPause = microseconds(25);
  static constexpr Duration kLeast = microseconds(2);
  static constexpr Duration kOfferEvery = microseconds(20);

  Duration most_;
  Duration budget_;
  TimePoint started_{};
  TimePoint last_look_{};
  TimePoint last_offer_{};
  bool disturbed_ = false;
};

}  // namespace shoal::link
