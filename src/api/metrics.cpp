#include "api/metrics.h"

#include <fmt/format.h>

namespace shoal::api {

void HttpMetrics::request_finished(std::string_view route, std::string_view method, int status,
                                   Duration duration, size_t response_bytes) {
  ++requests_[{std::string(route), std::string(method), status}];
  response_bytes_ += response_bytes;
  Histogram& histogram = durations_[std::string(route)];
  const double elapsed = to_seconds(duration);
  for (size_t i = 0; i < kBucketSeconds.size(); ++i) {
    if (elapsed <= kBucketSeconds[i]) ++histogram.counts[i];
  }
  ++histogram.count;
  histogram.sum += elapsed;
}

std::string HttpMetrics::text() const {
  std::string out =
      "# HELP shoal_http_connections Client connections that are open now\n"
      "# TYPE shoal_http_connections gauge\n";
  out += fmt::format("shoal_http_connections {}\n", connections_);
  out +=
      "# HELP shoal_http_response_bytes_total Bytes of answer bodies sent\n"
      "# TYPE shoal_http_response_bytes_total counter\n";
  out += fmt::format("shoal_http_response_bytes_total {}\n", response_bytes_);
  out +=
      "# HELP shoal_http_requests_total Requests answered; status 499 means that the client went away first\n"
      "# TYPE shoal_http_requests_total counter\n";
  for (const auto& [key, count] : requests_) {
    out += fmt::format("shoal_http_requests_total{{route=\"{}\",method=\"{}\",status=\"{}\"}} {}\n",
                       std::get<0>(key), std::get<1>(key), std::get<2>(key), count);
  }
  out +=
      "# HELP shoal_http_request_seconds From the head of a request to the end of its answer\n"
      "# TYPE shoal_http_request_seconds histogram\n";
  for (const auto& [route, histogram] : durations_) {
    for (size_t i = 0; i < kBucketSeconds.size(); ++i) {
      out += fmt::format("shoal_http_request_seconds_bucket{{route=\"{}\",le=\"{}\"}} {}\n", route,
                         kBucketSeconds[i], histogram.counts[i]);
    }
    out += fmt::format("shoal_http_request_seconds_bucket{{route=\"{}\",le=\"+Inf\"}} {}\n", route,
                       histogram.count);
    out += fmt::format("shoal_http_request_seconds_sum{{route=\"{}\"}} {}\n", route, histogram.sum);
    out += fmt::format("shoal_http_request_seconds_count{{route=\"{}\"}} {}\n", route, histogram.count);
  }
  return out;
}

}  // namespace shoal::api
