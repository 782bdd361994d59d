// What the HTTP side counts, as Prometheus text.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <tuple>

#include "base/clock.h"

namespace shoal::api {

class HttpMetrics {
 public:
  // `route` is a route's pattern, never a client's path: label values stay few.
  void request_finished(std::string_view route, std::string_view method, int status, Duration duration,
                        size_t response_bytes);
  void set_connections(size_t open) { connections_ = open; }
  std::string text() const;

 private:
  static constexpr std::array<double, 10> kBucketSeconds = {0.005, 0.02, 0.1, 0.5, 1, 2, 5, 15, 60, 300};
  struct Histogram {
    std::array<uint64_t, kBucketSeconds.size()> counts{};  // of requests no longer than the bucket's seconds
    uint64_t count = 0;
    double sum = 0;
  };
  std::map<std::tuple<std::string, std::string, int>, uint64_t> requests_;
  std::map<std::string, Histogram, std::less<>> durations_;
  uint64_t response_bytes_ = 0;
  size_t connections_ = 0;
};

}  // namespace shoal::api
