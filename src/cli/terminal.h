// What commands print for people: aligned tables, a progress bar, colours where there is a terminal to show
// them.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace shoal::cli {

class Table {
 public:
  enum class Align { left, right };
  struct Column {
    std::string title;
    Align align = Align::left;
  };
  explicit Table(std::vector<Column> columns) : columns_(std::move(columns)) {}
  void add(std::vector<std::string> row) { rows_.push_back(std::move(row)); }
  bool empty() const { return rows_.empty(); }
  // Lines with two spaces between columns and none at the end.
  std::string text() const;

 private:
  std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;
};

// `text` as one line that a terminal shows and does not obey: control characters become spaces. For names and
// messages of other nodes.
std::string printable(std::string_view text);

// Columns that `text` takes: characters, not bytes.
size_t display_width(std::string_view text);

bool is_terminal(int fd);
// A terminal, and NO_COLOR is not set.
bool wants_color(int fd);

// One line on stderr that is drawn over; nothing when stderr is not a terminal.
class ProgressLine {
 public:
  ProgressLine();
  ~ProgressLine() { clear(); }
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;
  // `fraction` from 0 to 1; below 0: unknown, no bar.
  void show(std::string_view text, double fraction);
  void clear();

 private:
  bool active_;
  bool shown_ = false;
};

// "[#####-----]  50 %"
std::string progress_bar(double fraction, size_t width);

}  // namespace shoal::cli
