// What the benchmarks share: clocks, medians, and the line of JSON that a figure is. bench/run reads the
// lines and judges them against their goals.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <fmt/format.h>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace shoal::bench {

double seconds();  // of a steady clock
double
processor_seconds();  // of this process, all threads together: what another load on the machine changes least

struct Times {
  double seconds = 0;
  double processor_seconds = 0;
};

// How long a piece of work takes.
template <class Work>
Times time_of(Work work) {
  const double start = seconds(), processor_start = processor_seconds();
  work();
  return {seconds() - start, processor_seconds() - processor_start};
}

double median(std::vector<double> values);
double quantile(std::vector<double> values, double share);  // of [0, 1)
double smallest(const std::vector<double>& values);
// Of each clock by itself.
Times quantile(const std::vector<Times>& times, double share);
inline Times median(const std::vector<Times>& times) {
  return quantile(times, 0.5);
}
// What something takes when nothing interrupts it: the border of the shortest fifth.
inline Times calm(const std::vector<Times>& times) {
  return quantile(times, 0.2);
}

// One measured number. `limit` is what bounds it on this machine, in the same unit; `goal` is what it has to
// reach, or, with `at_most`, to stay below.
struct Figure {
  std::string name;
  double value = 0;
  std::string_view unit;
  std::optional<double> limit = {};
  std::optional<double> goal = {};
  bool at_most = false;
};

void print(const Figure& figure);

[[noreturn]] void give_up(std::string_view why);

template <class T>
T need(Result<T> result) {
  if (!result) give_up(result.error().message);
  return *std::move(result);
}

}  // namespace shoal::bench
