#include "serving/metrics.h"

#include <algorithm>
#include <fmt/format.h>
#include <iterator>

namespace shoal::serving {

void Histogram::observe(Duration duration) {
  const double seconds = std::max(0.0, to_seconds(duration));
  counts_[static_cast<size_t>(std::ranges::lower_bound(kBounds, seconds) - kBounds.begin())] += 1;
  sum_seconds_ += seconds;
}

void Histogram::write(std::string& out, std::string_view name, std::string_view help) const {
  write_family(out, name, "histogram", help);
  uint64_t below = 0;
  for (size_t bucket = 0; bucket < counts_.size(); ++bucket) {
    below += counts_[bucket];
    const std::string bound = bucket < kBounds.size() ? fmt::format("{}", kBounds[bucket]) : "+Inf";
    fmt::format_to(std::back_inserter(out), "{}_bucket{{le=\"{}\"}} {}\n", name, bound, below);
  }
  fmt::format_to(std::back_inserter(out), "{}_sum {}\n{}_count {}\n", name, sum_seconds_, name, below);
}

void write_family(std::string& out, std::string_view name, std::string_view type, std::string_view help) {
  fmt::format_to(std::back_inserter(out), "# HELP {} {}\n# TYPE {} {}\n", name, help, name, type);
}

void write_sample(std::string& out, std::string_view name, std::string_view labels, double value) {
  if (labels.empty())
    fmt::format_to(std::back_inserter(out), "{} {}\n", name, value);
  else
    fmt::format_to(std::back_inserter(out), "{}{{{}}} {}\n", name, labels, value);
}

std::string escape_label(std::string_view value) {
  std::string escaped;
  for (const char c : value) {
    if (c == '\\' || c == '"') escaped.push_back('\\');
    if (c == '\n')
      escaped += "\\n";
    else
      escaped.push_back(c);
  }
  return escaped;
}

void write_gateway_metrics(std::string& out, const GatewayMetrics& metrics, size_t running) {
  write_family(out, "shoal_requests_total", "counter", "Generations that ended, by how.");
  write_sample(out, "shoal_requests_total", R"(outcome="stop")", static_cast<double>(metrics.stopped));
  write_sample(out, "shoal_requests_total", R"(outcome="length")", static_cast<double>(metrics.by_length));
  write_sample(out, "shoal_requests_total", R"(outcome="cancelled")", static_cast<double>(metrics.cancelled));
  write_sample(out, "shoal_requests_total", R"(outcome="error")", static_cast<double>(metrics.failed));
  write_family(out, "shoal_requests_running", "gauge",
               "Generations of this node's clients that have not ended.");
  write_sample(out, "shoal_requests_running", "", static_cast<double>(running));
  write_family(out, "shoal_prompt_tokens_total", "counter", "Prompt tokens of accepted generations.");
  write_sample(out, "shoal_prompt_tokens_total", "", static_cast<double>(metrics.prompt_tokens));
  write_family(out, "shoal_cached_prompt_tokens_total", "counter",
               "Prompt tokens found in the prefix cache.");
  write_sample(out, "shoal_cached_prompt_tokens_total", "", static_cast<double>(metrics.cached_tokens));
  write_family(out, "shoal_completion_tokens_total", "counter", "Tokens generated for this node's clients.");
  write_sample(out, "shoal_completion_tokens_total", "", static_cast<double>(metrics.completion_tokens));
  metrics.first_token.write(out, "shoal_time_to_first_token_seconds", "From request to first token.");
  metrics.between_tokens.write(out, "shoal_inter_token_seconds", "Between two tokens of a generation.");
}

}  // namespace shoal::serving
