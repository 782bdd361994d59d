#include "base/log.h"

#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <ctime>
#include <string>

namespace shoal {
namespace {

constexpr std::array<std::string_view, 5> kLevelNames = {"debug", "info", "warning", "error", "off"};

LogLevel level_from_environment() {
  const char* text = std::getenv("SHOAL_LOG");
  for (size_t i = 0; text && i < kLevelNames.size(); ++i) {
    if (kLevelNames[i] == text) return static_cast<LogLevel>(i);
  }
  return LogLevel::warning;
}

std::atomic<LogLevel>& threshold() {
  static std::atomic<LogLevel> level = level_from_environment();
  return level;
}

std::string& prefix() {
  static std::string text;
  return text;
}

}  // namespace

void set_log_level(LogLevel level) {
  if (!std::getenv("SHOAL_LOG")) threshold() = level;
}
void set_log_prefix(std::string_view text) { prefix() = std::string(text); }
bool log_enabled(LogLevel level) { return level >= threshold().load(std::memory_order_relaxed); }

void log_line(LogLevel level, std::string_view room, std::string_view message) {
  auto now = std::chrono::system_clock::now();
  std::time_t seconds = std::chrono::system_clock::to_time_t(now);
  auto millis = std::chrono::duration_cast<std::chrono::milliseconds>(now.time_since_epoch()).count() % 1000;
  std::tm local{};
  localtime_r(&seconds, &local);
  std::string line = fmt::format("{:02}:{:02}:{:02}.{:03} {:<7} {}{}{}: {}\n", local.tm_hour, local.tm_min, local.tm_sec,
                                 millis, kLevelNames[static_cast<size_t>(level)], prefix(),
                                 prefix().empty() ? "" : " ", room, message);
  // One write, so that lines of several threads and processes do not mix.
  [[maybe_unused]] ssize_t ignored = ::write(STDERR_FILENO, line.data(), line.size());
}

}  // namespace shoal
