#include "cli/line_editor.h"

#include <clocale>
#include <cstdio>
#include <cwchar>
#include <histedit.h>
#include <poll.h>
#include <unistd.h>

namespace shoal::cli {
namespace {

constexpr int kHistoryLines = 1000;
constexpr int kInterruptCheckMs = 100;

}  // namespace

struct LineEditor::State {
  State(std::string prompt_text, const std::atomic<bool>& interrupted_flag)
      : prompt(std::move(prompt_text)), interrupted(interrupted_flag) {}

  // One character from the terminal; -1 when interrupted, 0 at the end. libedit's own reader would start
  // over.
  static int read_character(EditLine* editor, wchar_t* character);
  static char* prompt_of(EditLine* editor);

  std::string prompt;
  const std::atomic<bool>& interrupted;
  EditLine* editor = nullptr;
  History* history = nullptr;
};

int LineEditor::State::read_character(EditLine* editor, wchar_t* character) {
  State* state = nullptr;
  el_get(editor, EL_CLIENTDATA, &state);
  std::mbstate_t decoding{};
  while (true) {
    if (state->interrupted) return -1;
    pollfd waiting{STDIN_FILENO, POLLIN, 0};
    if (::poll(&waiting, 1, kInterruptCheckMs) <= 0) continue;
    char byte = 0;
    const ssize_t got = ::read(STDIN_FILENO, &byte, 1);
    if (got < 0) continue;
    if (got == 0) return 0;
    const size_t length = std::mbrtowc(character, &byte, 1, &decoding);
    if (length == static_cast<size_t>(-2)) continue;  // more bytes of this character follow
    if (length != static_cast<size_t>(-1)) return 1;
    decoding = {};
  }
}

char* LineEditor::State::prompt_of(EditLine* editor) {
  State* state = nullptr;
  el_get(editor, EL_CLIENTDATA, &state);
  return state->prompt.data();
}

LineEditor::LineEditor(std::string prompt, const std::atomic<bool>& interrupted)
    : state_(std::make_unique<State>(std::move(prompt), interrupted)) {
  std::setlocale(LC_CTYPE, "");
  state_->history = history_init();
  HistEvent event;
  history(state_->history, &event, H_SETSIZE, kHistoryLines);
  history(state_->history, &event, H_SETUNIQUE, 1);
  state_->editor = el_init("shoal", stdin, stdout, stderr);
  el_set(state_->editor, EL_CLIENTDATA, state_.get());
  el_set(state_->editor, EL_PROMPT, &State::prompt_of);
  el_set(state_->editor, EL_EDITOR, "emacs");
  el_set(state_->editor, EL_HIST, history, state_->history);
  el_set(state_->editor, EL_GETCFN, &State::read_character);
}

LineEditor::~LineEditor() {
  el_end(state_->editor);
  history_end(state_->history);
}

LineOutcome LineEditor::read(std::string& line) {
  int count = 0;
  const char* text = el_gets(state_->editor, &count);
  if (state_->interrupted) return LineOutcome::interrupted;
  if (text == nullptr || count <= 0) return LineOutcome::end_of_input;
  line.assign(text, static_cast<size_t>(count));
  while (line.ends_with('\n') || line.ends_with('\r')) line.pop_back();
  if (!line.empty()) {
    HistEvent event;
    history(state_->history, &event, H_ENTER, line.c_str());
  }
  return LineOutcome::line;
}

}  // namespace shoal::cli
