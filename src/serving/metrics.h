// Figures of serving in Prometheus' text format
// (https://prometheus.io/docs/instrumenting/exposition_formats/).
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "base/result.h"

namespace shoal::serving {

// Seconds, in fixed buckets from 1 ms to 60 s.
class Histogram {
 public:
  static constexpr std::array<double, 15> kBounds = {0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2,
                                                     0.5,   1,     2,     5,    10,   30,   60};
  void observe(Duration duration);
  void write(std::string& out, std::string_view name, std::string_view help) const;

 private:
  std::array<uint64_t, kBounds.size() + 1> counts_ = {};  // by bucket; the last is above all bounds
  double sum_seconds_ = 0;
};

// Of a gateway, since its start.
struct GatewayMetrics {
  uint64_t stopped = 0;  // requests by how they ended
  uint64_t by_length = 0;
  uint64_t cancelled = 0;
  uint64_t failed = 0;
  uint64_t prompt_tokens = 0;
  uint64_t cached_tokens = 0;
  uint64_t completion_tokens = 0;
  Histogram first_token;
  Histogram between_tokens;
};

// One family and one sample line each; `labels` as in `instance="x",stage="0"`, or empty.
void write_family(std::string& out, std::string_view name, std::string_view type, std::string_view help);
void write_sample(std::string& out, std::string_view name, std::string_view labels, double value);
std::string escape_label(std::string_view value);

void write_gateway_metrics(std::string& out, const GatewayMetrics& metrics, size_t running);

}  // namespace shoal::serving
