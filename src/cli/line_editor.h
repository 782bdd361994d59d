// Reads lines from the terminal with editing and a history of this session (kept in memory only: prompts are
// private).
#pragma once

#include <atomic>
#include <memory>
#include <string>

namespace shoal::cli {

enum class LineOutcome { line, end_of_input, interrupted };

class LineEditor {
 public:
  // `interrupted` is set by a signal handler (Ctrl-C); reading ends when it is true.
  explicit LineEditor(std::string prompt, const std::atomic<bool>& interrupted);
  ~LineEditor();
  LineEditor(const LineEditor&) = delete;
  LineEditor& operator=(const LineEditor&) = delete;

  LineOutcome read(std::string& line);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace shoal::cli
