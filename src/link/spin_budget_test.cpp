#include "link/spin_budget.h"

#include <gtest/gtest.h>

namespace shoal::link {
namespace {

TEST(SpinBudget, LooksForItsBudgetWhileNobodyWantsTheCore) {
  SpinBudget spin(microseconds(50));
  TimePoint now{};
  spin.begin(now);
  int looks = 0;
  while (spin.may_look_again(now)) {
    ++looks;
    now += microseconds(1);
  }
  EXPECT_EQ(looks, 50);
  spin.end();
  EXPECT_EQ(spin.budget(), microseconds(50));
}

TEST(SpinBudget, APauseBetweenLooksCutsItAndCalmWaitsWinItBack) {
  SpinBudget spin(microseconds(64));
  TimePoint now{};
  auto disturbed_wait = [&] {
    spin.begin(now);
    now += milliseconds(1);
    spin.may_look_again(now);
    spin.end();
  };
  disturbed_wait();
  EXPECT_EQ(spin.budget(), microseconds(16));
  for (int i = 0; i < 10; ++i) disturbed_wait();
  EXPECT_EQ(spin.budget(), microseconds(2)) << "it never stops looking";
  for (int i = 0; i < 62; ++i) {
    spin.begin(now);
    spin.may_look_again(now);
    spin.end();
  }
  EXPECT_EQ(spin.budget(), microseconds(64));
}

TEST(SpinBudget, OffersTheCoreNowAndThen) {
  SpinBudget spin(microseconds(100));
  TimePoint now{};
  spin.begin(now);
  int offers = 0;
  for (; spin.may_look_again(now); now += microseconds(1)) offers += spin.offer_core(now) ? 1 : 0;
  EXPECT_EQ(offers, 4);
}

TEST(SpinBudget, WithoutABudgetItSleepsAtOnce) {
  SpinBudget spin(Duration{});
  spin.begin(TimePoint{});
  EXPECT_FALSE(spin.may_look_again(TimePoint{}));
}

}  // namespace
}  // namespace shoal::link
