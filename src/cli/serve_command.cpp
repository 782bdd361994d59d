#include "cli/serve_command.h"

#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <csignal>
#include <fmt/format.h>
#include <optional>
#include <sys/resource.h>
#include <unistd.h>

#include "base/log.h"
#include "base/system.h"
#include "cli/ask_commands.h"
#include "cli/cluster_bus.h"
#include "cli/cluster_watch.h"
#include "cli/error_line.h"
#include "cli/model_argument.h"
#include "cli/node_host.h"
#include "cli/state_directory.h"
#include "cli/terminal.h"

namespace shoal::cli {
namespace {

constexpr Duration kGrace = seconds(3);    // for requests in progress when the node is told to stop
constexpr unsigned kStopLimitSeconds = 6;  // then the process ends whatever it does
constexpr Duration kLookInterval = milliseconds(250);
constexpr Duration kPatienceForNodes = seconds(10);
constexpr int kSecondSignalExit = 130;

std::string url_for(const std::string& host, uint16_t port) {
  return host.contains(':') ? fmt::format("http://[{}]:{}", host, port)
                            : fmt::format("http://{}:{}", host, port);
}

// How other machines reach the API; empty when they do not.
std::string public_url(const ServeOptions& options, uint16_t port) {
  if (!opens_the_api(options)) return {};
  return url_for(is_any_address(options.listen) ? host_name() : options.listen, port);
}

std::vector<std::string> api_addresses(const ServeOptions& options) {
  if (!opens_the_api(options)) return {"localhost"};
  if (is_any_address(options.listen)) return {options.listen};
  return {"localhost", options.listen};
}

// Many clients at once need many descriptors; the soft limit is often the old 1024.
void raise_descriptor_limit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == limit.rlim_max) return;
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

class ServeSession {
 public:
  explicit ServeSession(ServeOptions options) : options_(std::move(options)), signals_(io_), timer_(io_) {}

  Result<> start();
  int run() {
    io_.run();
    host_.reset();
    return exit_code_;
  }

 private:
  void greet() const;
  void watch();
  void show_progress(const Json& cluster);
  void place_when_ready();
  void place();
  void await_signal();
  void stop(int exit_code);

  ServeOptions options_;
  boost::asio::io_context io_;
  boost::asio::signal_set signals_;
  boost::asio::steady_timer timer_;
  std::optional<StateDirectory> state_;
  std::unique_ptr<NodeHost> host_;
  ClusterWatch watch_;
  ProgressLine progress_;
  TimePoint started_ = std::chrono::steady_clock::now();
  bool placing_ = false;
  bool stopping_ = false;
  size_t last_announced_nodes_ = 0;
  int exit_code_ = 0;
};

Result<> ServeSession::start() {
  if (options_.listen == "localhost") options_.listen = "127.0.0.1";
  SHOAL_TRY(state_, StateDirectory::open(options_.data_directory));
  NodeHost::Options host;
  host.http.addresses = api_addresses(options_);
  host.http.port = options_.port;
  host.access.api_key = options_.api_key;
  host.access.allowed_origins = options_.allowed_origins;
  host.node.name = options_.name.empty() ? host_name() : options_.name;
  host.node.cluster_name = options_.cluster;
  host.node.data_directory = options_.data_directory;
  host.node.memory_bytes = options_.memory_bytes;
  host.node.threads = options_.threads;
  host.node.measure_again = options_.measure;
  host.node.api_url = public_url(options_, options_.port);
  if (!options_.listen.empty() && !is_any_address(options_.listen))
    host.node.listen_addresses = {options_.listen};
  boost::system::error_code error;
  signals_.add(SIGINT, error);
  signals_.add(SIGTERM, error);
  std::signal(SIGPIPE, SIG_IGN);
  auto bus = make_cluster_bus(io_, options_, state_->node_id());
  SHOAL_TRY(host_, NodeHost::start(io_, std::move(host), std::move(bus)));
  await_signal();
  greet();
  watch();
  return {};
}

void ServeSession::greet() const {
  const std::string url = url_for("localhost", host_->port());
  std::string models;
  std::string example = options_.model;
  for (const auto& model : host_->node().model_store().list()) {
    models += (models.empty() ? "" : ", ") + model.name;
    if (example.empty()) example = model.name;
  }
  fmt::print("shoal {} is up: node '{}' of cluster '{}'\n", SHOAL_VERSION,
             options_.name.empty() ? host_name() : options_.name, options_.cluster);
  fmt::print("  API     {}/v1  (any OpenAI client works with this address{})\n", url,
             options_.api_key.empty() ? "" : " and the API key");
  fmt::print("  models  {}\n", models.empty() ? "none yet: put .gguf files into " +
                                                    (options_.data_directory / "models").string()
                                              : models);
  fmt::print(
      "  try     curl {}/v1/chat/completions -H 'Content-Type: application/json'{} \\\n"
      "            -d '{{\"model\": \"{}\", \"messages\": [{{\"role\": \"user\", \"content\": \"What is a "
      "shard?\"}}]}}'\n",
      url, options_.api_key.empty() ? "" : " -H 'Authorization: Bearer KEY'",
      example.empty() ? "MODEL" : example);
  fmt::print("  Ctrl-C stops this node.\n");
  if (opens_the_api(options_) && options_.api_key.empty()) {
    fmt::print("  note    everybody who reaches {} can use this API; --api-key asks for a key\n",
               options_.listen);
  }
  std::fflush(stdout);
}

void ServeSession::watch() {
  const Json cluster = host_->node().cluster();
  const std::vector<std::string> lines = watch_.look(cluster);
  if (!lines.empty()) progress_.clear();
  for (const auto& line : lines) fmt::print("{}\n", line);
  std::fflush(stdout);
  show_progress(cluster);
  place_when_ready();
  timer_.expires_after(kLookInterval);
  timer_.async_wait([this](const boost::system::error_code& cancelled) {
    if (!cancelled && !stopping_) watch();
  });
}

// Of the model that this node was told to serve.
void ServeSession::show_progress(const Json& cluster) {
  const auto fraction = placing_ ? loading_progress(cluster, model_argument(options_.model)) : std::nullopt;
  if (fraction) return progress_.show("loading " + options_.model, *fraction);
  progress_.clear();
}

void ServeSession::place_when_ready() {
  if (options_.model.empty() || placing_ || stopping_) return;
  const size_t nodes = watch_.node_count();
  const bool patient = std::chrono::steady_clock::now() - started_ < kPatienceForNodes;
  if (nodes < options_.minimum_nodes && patient) {
    if (last_announced_nodes_ != nodes)
      fmt::print("  {} of {} nodes are here\n", nodes, options_.minimum_nodes);
    last_announced_nodes_ = nodes;
    return;
  }
  place();
}

void ServeSession::place() {
  placing_ = true;
  serving::PlaceOptions place;
  place.model = model_argument(options_.model);
  place.minimum_nodes = options_.minimum_nodes;
  if (options_.context_tokens > 0) place.context_tokens = options_.context_tokens;
  host_->node().place(place, [this](const Result<Json>& placed) {
    if (stopping_) return;
    progress_.clear();
    if (!placed) {
      report_failure(placed.error());
      return stop(1);
    }
    for (const auto& line : watch_.look(host_->node().cluster())) fmt::print("{}\n", line);
    std::fflush(stdout);
  });
}

void ServeSession::await_signal() {
  signals_.async_wait([this](const boost::system::error_code& cancelled, int) {
    if (cancelled) return;
    if (stopping_) ::_exit(kSecondSignalExit);
    fmt::print("\nstopping; once more ends at once\n");
    std::fflush(stdout);
    await_signal();
    stop(0);
  });
}

void ServeSession::stop(int exit_code) {
  stopping_ = true;
  exit_code_ = exit_code;
  timer_.cancel();
  ::alarm(kStopLimitSeconds);  // whatever hangs: its default action ends the process, and the workers with it
  host_->stop(kGrace, [this] { io_.stop(); });
}

}  // namespace

bool is_loopback_address(const std::string& address) {
  return address == "::1" || address.starts_with("127.");
}

bool is_any_address(const std::string& address) {
  return address == "0.0.0.0" || address == "::";
}

int run_serve(const ServeOptions& options) {
  set_log_level(LogLevel::warning);
  raise_descriptor_limit();
  ServeSession session(options);
  if (const auto started = session.start(); !started) return report_failure(started.error());
  return session.run();
}

}  // namespace shoal::cli
