#include "serving/machine_survey.h"

#include <algorithm>
#include <array>
#include <csignal>
#include <fmt/format.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

#include "base/limits.h"
#include "base/log.h"
#include "base/process.h"
#include "base/socket.h"
#include "cluster/facts.h"
#include "serving/probe.h"

namespace shoal::serving {
namespace {

constexpr Duration kPatience = seconds(10);  // a starved machine takes longer than it should
constexpr Duration kSettleTime = milliseconds(500);
constexpr Duration kLookInterval = milliseconds(50);
constexpr size_t kMaxAnswerBytes = 64 * limits::kKiB;

// A node that starts finds the others first: measuring takes every core.
void settle(const std::atomic<bool>& awaited) {
  const SystemClock clock;
  const TimePoint end = clock.now() + kSettleTime;
  while (!awaited && clock.now() < end) std::this_thread::sleep_for(milliseconds(10));
}

// All that the child writes until it closes its end.
Result<std::string> read_answer(const FileDescriptor& socket, const std::atomic<bool>& cancelled) {
  const SystemClock clock;
  const TimePoint deadline = clock.now() + kPatience;
  std::string answer;
  std::array<std::byte, 4096> piece;
  while (clock.now() < deadline) {
    if (cancelled) return fail(ErrorCode::cancelled, "measuring was given up");
    if (!wait_readable(socket.get(), clock.now() + kLookInterval)) continue;
    const Transfer transfer = receive_some(socket.get(), piece);
    if (transfer.status == TransferStatus::would_block) continue;
    if (transfer.status != TransferStatus::moved) return answer;
    answer += as_text(ByteView(piece).first(transfer.bytes));
    if (answer.size() > kMaxAnswerBytes)
      return fail(ErrorCode::malformed, "the measuring process talks too much");
  }
  return fail(ErrorCode::timeout, fmt::format("measuring took more than {} s", to_seconds(kPatience)));
}

Result<MachineFigures> parse_answer(const std::string& answer) {
  if (answer.empty()) return fail(ErrorCode::internal, "the measuring process ended without a result");
  SHOAL_TRY(const JsonObject object, parse_json_object(answer, "what was measured"));
  SHOAL_TRY(const JsonObject* error, get_object(object, "error"));
  if (error == nullptr) return machine_figures_from_json(object);
  SHOAL_TRY(Error why, cluster::error_from_json(*error));
  return std::unexpected(std::move(why));
}

}  // namespace

void MachineSurvey::start(Measured measured) {
  figures_ = options_.given;
  if (figures_) return;
  const MachineIdentity identity = MachineIdentity::here(options_.threads, options_.isa);
  if (!options_.again && !options_.data_directory.empty())
    figures_ = load_figures(options_.data_directory, identity);
  if (figures_) return;
  measured_ = std::move(measured);
  measuring_ = std::make_unique<TaskPool>(io_, 1);
  measuring_->run(
      [options = options_, identity, cancelled = cancelled_, awaited = awaited_] {
        settle(*awaited);
        Result<MachineFigures> figures =
            measure_in_child(options.executable, options.threads, options.isa, *cancelled);
        if (!figures || options.data_directory.empty()) return figures;
        if (const Result<> stored = store_figures(options.data_directory, identity, *figures); !stored)
          log_warning("node", "figures of this machine are not kept: {}", stored.error().text());
        return figures;
      },
      [this](Result<MachineFigures> figures) { finish(std::move(figures)); });
}

void MachineSurvey::finish(Result<MachineFigures> figures) {
  measuring_->close();
  measuring_.reset();
  if (figures) {
    figures_ = *std::move(figures);
    measured_(*figures_);
  } else {
    log_warning("node", "this machine is not measured: {}", figures.error().text());
  }
  for (const auto& then : std::exchange(waiting_, {})) then();
}

void MachineSurvey::when_done(std::function<void()> then) {
  if (!measuring_) return then();
  *awaited_ = true;
  waiting_.push_back(std::move(then));
}

void MachineSurvey::stop() {
  *cancelled_ = true;
  *awaited_ = true;
  measuring_.reset();
  for (const auto& then : std::exchange(waiting_, {})) then();
}

Result<MachineFigures> measure_in_child(const std::filesystem::path& executable, unsigned threads,
                                        const std::string& isa, const std::atomic<bool>& cancelled) {
  std::vector<std::string> words = {"measure", "--fd", std::to_string(kChildSocket), "--threads",
                                    std::to_string(threads)};
  if (!isa.empty()) words.insert(words.end(), {"--isa", isa});
  SHOAL_TRY(const ChildProcess child, spawn_process(executable, words));
  const Result<std::string> answer = read_answer(child.socket, cancelled);
  ::kill(child.pid, SIGKILL);  // whether it is done or late
  ::waitpid(child.pid, nullptr, 0);
  if (!answer) return std::unexpected(answer.error());
  return parse_answer(*answer);
}

int run_measure(int fd, unsigned threads, const std::string& isa) {
  const Result<MachineFigures> figures = measure_machine(threads, isa);
  const JsonObject answer =
      figures ? to_json(*figures) : JsonObject{{"error", cluster::to_json(figures.error())}};
  const std::string text = to_text(answer);
  for (size_t written = 0; written < text.size();) {
    const ssize_t count = ::write(fd, text.data() + written, text.size() - written);
    if (count <= 0) return 1;
    written += static_cast<size_t>(count);
  }
  return figures ? 0 : 1;
}

}  // namespace shoal::serving
