#include "cli/terminal.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fmt/format.h>
#include <unistd.h>

namespace shoal::cli {
namespace {

constexpr size_t kBarWidth = 24;

std::string padded(const std::string& text, size_t width, Table::Align align) {
  const std::string spaces(width - std::min(width, display_width(text)), ' ');
  return align == Table::Align::left ? text + spaces : spaces + text;
}

}  // namespace

std::string printable(std::string_view text) {
  std::string out(text);
  for (size_t i = 0; i < out.size(); ++i) {
    const auto byte = static_cast<unsigned char>(out[i]);
    const bool second_set = byte == 0xC2 && i + 1 < out.size() && (out[i + 1] & 0xE0) == 0x80;  // U+0080-009F
    if (second_set) out.erase(i + 1, 1);
    if (byte < 0x20 || byte == 0x7F || second_set) out[i] = ' ';
  }
  return out;
}

size_t display_width(std::string_view text) {
  return static_cast<size_t>(
      std::ranges::count_if(text, [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

std::string Table::text() const {
  std::vector<size_t> widths;
  for (const Column& column : columns_) widths.push_back(display_width(column.title));
  for (const auto& row : rows_) {
    for (size_t i = 0; i < std::min(row.size(), widths.size()); ++i)
      widths[i] = std::max(widths[i], display_width(row[i]));
  }
  std::string out;
  const auto add_line = [&](const auto& cell) {
    std::string line;
    for (size_t i = 0; i < columns_.size(); ++i) {
      line += (i == 0 ? "" : "  ") + padded(cell(i), widths[i], columns_[i].align);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    out += line + "\n";
  };
  add_line([&](size_t i) { return columns_[i].title; });
  for (const auto& row : rows_) add_line([&](size_t i) { return i < row.size() ? row[i] : std::string(); });
  return out;
}

bool is_terminal(int fd) {
  return ::isatty(fd) == 1;
}

bool wants_color(int fd) {
  const char* no_color = std::getenv("NO_COLOR");
  return is_terminal(fd) && (no_color == nullptr || *no_color == '\0');
}

std::string progress_bar(double fraction, size_t width) {
  const double bounded = std::clamp(fraction, 0.0, 1.0);
  const auto filled = static_cast<size_t>(bounded * static_cast<double>(width) + 0.5);
  return fmt::format("[{}{}] {:3.0f} %", std::string(filled, '#'), std::string(width - filled, '-'),
                     bounded * 100);
}

ProgressLine::ProgressLine() : active_(is_terminal(STDERR_FILENO)) {}

void ProgressLine::show(std::string_view text, double fraction) {
  if (!active_) return;
  shown_ = true;
  fmt::print(stderr, "\r\x1b[2K{}{}{}", text, fraction < 0 ? "" : "  ",
             fraction < 0 ? "" : progress_bar(fraction, kBarWidth));
  std::fflush(stderr);
}

void ProgressLine::clear() {
  if (!shown_) return;
  shown_ = false;
  fmt::print(stderr, "\r\x1b[2K");
  std::fflush(stderr);
}

}  // namespace shoal::cli
