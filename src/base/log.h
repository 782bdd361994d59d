// The one global: a line logger to stderr. `log_info("node", "joined {}", name)` prints
// "12:30:01.234 info  node: joined alpha". Never log prompts, answers or keys.
#pragma once

#include <fmt/format.h>

#include <string_view>

namespace shoal {

enum class LogLevel { debug, info, warning, error, off };

void set_log_level(LogLevel level);  // default: warning; SHOAL_LOG=debug|info|warning|error|off overrides it
void set_log_prefix(std::string_view prefix);  // e.g. "worker 2", shown before the room
bool log_enabled(LogLevel level);
void log_line(LogLevel level, std::string_view room, std::string_view message);

template <class... Arguments>
void log_debug(std::string_view room, fmt::format_string<Arguments...> format, Arguments&&... arguments) {
  if (log_enabled(LogLevel::debug)) log_line(LogLevel::debug, room, fmt::format(format, std::forward<Arguments>(arguments)...));
}
template <class... Arguments>
void log_info(std::string_view room, fmt::format_string<Arguments...> format, Arguments&&... arguments) {
  if (log_enabled(LogLevel::info)) log_line(LogLevel::info, room, fmt::format(format, std::forward<Arguments>(arguments)...));
}
template <class... Arguments>
void log_warning(std::string_view room, fmt::format_string<Arguments...> format, Arguments&&... arguments) {
  if (log_enabled(LogLevel::warning)) log_line(LogLevel::warning, room, fmt::format(format, std::forward<Arguments>(arguments)...));
}
template <class... Arguments>
void log_error(std::string_view room, fmt::format_string<Arguments...> format, Arguments&&... arguments) {
  if (log_enabled(LogLevel::error)) log_line(LogLevel::error, room, fmt::format(format, std::forward<Arguments>(arguments)...));
}

}  // namespace shoal
