#include "figures.h"

#include <algorithm>
#include <chrono>
#include <time.h>

namespace shoal::bench {

double seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double processor_seconds() {
  timespec time = {};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

double quantile(std::vector<double> values, double share) {
  if (values.empty()) return 0;
  const auto at = values.begin() + static_cast<std::ptrdiff_t>(share * static_cast<double>(values.size()));
  std::ranges::nth_element(values, at);
  return *at;
}

double median(std::vector<double> values) {
  return quantile(std::move(values), 0.5);
}

Times quantile(const std::vector<Times>& times, double share) {
  std::vector<double> wall, processor;
  for (const Times& time : times) {
    wall.push_back(time.seconds);
    processor.push_back(time.processor_seconds);
  }
  return {quantile(std::move(wall), share), quantile(std::move(processor), share)};
}

double smallest(const std::vector<double>& values) {
  return *std::ranges::min_element(values);
}

void print(const Figure& figure) {
  const auto number = [](std::optional<double> value) {
    return value ? fmt::format("{:.4g}", *value) : std::string("null");
  };
  fmt::print(
      "{{\"name\": \"{}\", \"value\": {:.4g}, \"unit\": \"{}\", \"limit\": {}, \"goal\": {}, \"at_most\": "
      "{}}}\n",
      figure.name, figure.value, figure.unit, number(figure.limit), number(figure.goal), figure.at_most);
  std::fflush(stdout);
}

void give_up(std::string_view why) {
  fmt::print(stderr, "bench: {}\n", why);
  std::exit(1);
}

}  // namespace shoal::bench
