#include "cli/run_command.h"

#include <atomic>
#include <csignal>
#include <fmt/format.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/limits.h"
#include "cli/chat_stream.h"
#include "cli/error_line.h"
#include "cli/http_client.h"
#include "cli/line_editor.h"
#include "cli/loading_line.h"
#include "cli/local_node.h"
#include "cli/model_argument.h"
#include "cli/terminal.h"

namespace shoal::cli {
namespace {

constexpr int kInterruptedExit = 130;

std::atomic<bool> interrupted = false;  // by Ctrl-C; a signal handler can only reach what is global
static_assert(std::atomic<bool>::is_always_lock_free);

void catch_interrupts() {
  struct sigaction action{};
  action.sa_handler = [](int) { interrupted = true; };
  sigaction(SIGINT, &action, nullptr);
  signal(SIGPIPE, SIG_IGN);
}

class Chat {
 public:
  Chat(HttpClient client, const RunOptions& options) : client_(std::move(client)), options_(options) {
    reset();
  }

  void reset() {
    messages_.clear();
    if (!options_.system.empty())
      messages_.push_back(JsonObject{{"role", "system"}, {"content", options_.system}});
  }
  // Prints the answer as it comes. `cancelled` when Ctrl-C stopped it.
  Result<> ask(const std::string& text);

 private:
  std::string body() const;

  HttpClient client_;
  RunOptions options_;
  JsonArray messages_;
};

std::string Chat::body() const {
  JsonObject body;
  body["model"] = model_argument(options_.model);
  body["messages"] = messages_;
  body["stream"] = true;
  body["stream_options"] = JsonObject{{"include_usage", true}};
  if (options_.temperature) body["temperature"] = *options_.temperature;
  if (options_.seed) body["seed"] = *options_.seed;
  if (options_.max_tokens) body["max_tokens"] = *options_.max_tokens;
  return to_text(body);
}

Result<> Chat::ask(const std::string& text) {
  messages_.push_back(JsonObject{{"role", "user"}, {"content", text}});
  LoadingLine loading(client_, model_argument(options_.model));
  const TimePoint asked = std::chrono::steady_clock::now();
  ChatStream stream([&](std::string_view words) {
    loading.stop();
    fmt::print("{}", words);
    std::fflush(stdout);
  });
  const auto answer = client_.stream(
      "POST", "/v1/chat/completions", body(), [&](std::string_view part) { stream.feed(part); },
      [] { return interrupted.load(); });
  loading.stop();
  if (!stream.answer().empty() && (is_terminal(STDOUT_FILENO) || !stream.answer().ends_with('\n')))
    fmt::print("\n");
  std::fflush(stdout);
  if (!stream.answer().empty()) {
    messages_.push_back(JsonObject{{"role", "assistant"}, {"content", stream.answer()}});
  } else {
    messages_.pop_back();
  }
  if (!answer) return std::unexpected(answer.error());
  if (answer->status != 200) return std::unexpected(error_of_answer(*answer));
  if (stream.error()) return std::unexpected(*stream.error());
  if (wants_color(STDERR_FILENO) && stream.completion_tokens() > 0) {
    const double elapsed = to_seconds(std::chrono::steady_clock::now() - asked);
    fmt::print(stderr, "\x1b[2m{} tokens in {:.2f} s, {:.1f} tok/s{}\x1b[0m\n", stream.completion_tokens(),
               elapsed, static_cast<double>(stream.completion_tokens()) / std::max(elapsed, 1e-6),
               stream.finish_reason() == "length" ? ", cut at the limit" : "");
  }
  return {};
}

int answer_once(Chat& chat, const std::string& prompt) {
  if (const auto asked = chat.ask(prompt); !asked) {
    return asked.error().code == ErrorCode::cancelled ? kInterruptedExit : report_failure(asked.error());
  }
  return 0;
}

int converse(Chat& chat, const std::string& model) {
  fmt::print("Chat with {}. /help lists commands, Ctrl-D leaves.\n", model);
  LineEditor editor(">>> ", interrupted);
  std::string line;
  bool wants_to_leave = false;  // Ctrl-C at the prompt may have been meant for an answer that had just ended
  while (true) {
    interrupted = false;
    const LineOutcome outcome = editor.read(line);
    if (outcome == LineOutcome::interrupted && !std::exchange(wants_to_leave, true)) {
      fmt::print("\nCtrl-C once more (or Ctrl-D) leaves\n");
      continue;
    }
    if (outcome != LineOutcome::line) {
      fmt::print("\n");
      return 0;
    }
    wants_to_leave = false;
    if (line.find_first_not_of(" \t") == line.npos) continue;
    if (line == "/quit" || line == "/exit" || line == "/bye") return 0;
    if (line == "/help") {
      fmt::print(
          "/reset  forget the conversation\n/quit   leave (so does Ctrl-D)\nCtrl-C  stops an answer; twice "
          "at the prompt it leaves\n");
    } else if (line == "/reset") {
      chat.reset();
      fmt::print("forgotten\n");
    } else if (line.starts_with('/')) {
      fmt::print("unknown command {}; /help lists them\n", line);
    } else if (const auto asked = chat.ask(line); !asked && asked.error().code != ErrorCode::cancelled) {
      report_failure(asked.error());
    }
  }
}

// All of standard input, up to what a request may hold.
Result<std::string> read_standard_input() {
  std::string text;
  char block[4096];
  ssize_t got = 0;
  while ((got = ::read(STDIN_FILENO, block, sizeof(block))) > 0) {
    text.append(block, static_cast<size_t>(got));
    if (text.size() > limits::kMaxBodyBytes) {
      return fail(ErrorCode::limit_exceeded,
                  fmt::format("standard input has more than {} bytes", limits::kMaxBodyBytes));
    }
  }
  if (text.find_first_not_of(" \t\r\n") == text.npos) {
    return fail(ErrorCode::invalid_argument, "there is no prompt: standard input is empty",
                "give PROMPT, or run it in a terminal");
  }
  return text;
}

int chat_at(const std::string& url, const RunOptions& options) {
  auto client = HttpClient::to(url, options.ask.api_key);
  if (!client) return report_failure(client.error());
  Chat chat(std::move(*client), options);
  catch_interrupts();
  if (options.prompt) return answer_once(chat, *options.prompt);
  if (is_terminal(STDIN_FILENO)) return converse(chat, options.model);
  const auto prompt = read_standard_input();
  return prompt ? answer_once(chat, *prompt) : report_failure(prompt.error());
}

}  // namespace

int run_chat(const RunOptions& options) {
  const auto client = HttpClient::to(options.ask.url, options.ask.api_key);
  if (!client) return report_failure(client.error());
  const auto health = client->request("GET", "/health");
  if (health) return chat_at(options.ask.url, options);
  if (health.error().code != ErrorCode::unavailable) return report_failure(health.error());
  auto node = LocalNode::start({.memory_bytes = options.memory_bytes, .threads = options.threads});
  if (!node) return report_failure(node.error());
  return chat_at((*node)->url(), options);
}

}  // namespace shoal::cli
