#include "worker/worker_client.h"

#include <array>
#include <boost/asio/buffer.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>
#include <deque>
#include <fmt/format.h>
#include <signal.h>
#include <thread>

#include "base/clock.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/process.h"

namespace shoal::worker {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;

constexpr Duration kReapInterval = milliseconds(5);
constexpr Duration kExitGrace = seconds(2);  // from the socket's end, or from shut_down(), to SIGKILL
constexpr int kReapAttemptsAtEnd = 20;       // 1 ms each, when the client is destroyed
constexpr uint64_t kMaxQueuedBytes = 2 * limits::kMaxControlMessageBytes;

// The process and its socket. Handlers keep it alive until the process is reaped, also after its client is
// gone; then there is no listener any more.
class Session : public std::enable_shared_from_this<Session> {
 public:
  Session(asio::io_context& io, pid_t pid, std::string name, std::shared_ptr<WorkerListener> listener)
      : socket_(io),
        exit_timer_(io),
        reap_timer_(io),
        pid_(pid),
        name_(std::move(name)),
        listener_(std::move(listener)) {}

  Result<> start(FileDescriptor socket);
  pid_t pid() const { return pid_; }

  void send(const NodeMessage& message);
  void shut_down() {
    send(ShutDown{});
    kill_after(kExitGrace);
  }
  void detach();

 private:
  void read_length();
  void read_body(uint32_t length);
  void write_next();
  void dispatch(WorkerMessage message);
  void refuse(const Error& error);
  void socket_ended();
  void kill_after(Duration grace);
  void kill_now() {
    if (!exit_status_) ::kill(pid_, SIGKILL);
  }
  void reap();

  asio::local::stream_protocol::socket socket_;
  asio::steady_timer exit_timer_;
  asio::steady_timer reap_timer_;
  const pid_t pid_;
  const std::string name_;
  std::shared_ptr<WorkerListener> listener_;

  std::array<std::byte, kLengthBytes> length_{};
  Bytes body_;
  std::deque<Bytes> outgoing_;
  uint64_t outgoing_bytes_ = 0;
  bool ended_ = false;    // the socket
  bool refused_ = false;  // it or we broke the protocol: nothing more is heard or said
  std::optional<int> exit_status_;
};

Result<> Session::start(FileDescriptor socket) {
  error_code error;
  socket_.assign(asio::local::stream_protocol(), socket.get(), error);
  if (error)
    return fail(ErrorCode::io, fmt::format("{}: cannot watch its socket: {}", name_, error.message()));
  socket.release();
  read_length();
  return {};
}

void Session::send(const NodeMessage& message) {
  if (ended_ || refused_) return;
  Bytes bytes = encode(message);
  uint64_t queued = outgoing_bytes_ + bytes.size();
  if (bytes.size() > limits::kMaxControlMessageBytes || queued > kMaxQueuedBytes) {
    refused_ = true;
    Error error{
        ErrorCode::limit_exceeded,
        fmt::format("{}: a message of {} bytes with {} waiting", name_, bytes.size(), outgoing_bytes_), ""};
    asio::post(socket_.get_executor(), [self = shared_from_this(), error] { self->refuse(error); });
    return;
  }
  outgoing_bytes_ = queued;
  outgoing_.push_back(std::move(bytes));
  if (outgoing_.size() == 1) write_next();
}

void Session::write_next() {
  auto written = [self = shared_from_this()](error_code error, size_t) {
    if (error) return;  // the reading side hears of the end
    self->outgoing_bytes_ -= self->outgoing_.front().size();
    self->outgoing_.pop_front();
    if (!self->outgoing_.empty()) self->write_next();
  };
  asio::async_write(socket_, asio::buffer(outgoing_.front()), std::move(written));
}

void Session::read_length() {
  auto got = [self = shared_from_this()](error_code error, size_t) {
    if (error) return self->socket_ended();
    auto length = decode_length(self->length_);
    if (!length) return self->refuse(length.error());
    self->read_body(*length);
  };
  asio::async_read(socket_, asio::buffer(length_), std::move(got));
}

void Session::read_body(uint32_t length) {
  body_.resize(length);
  auto got = [self = shared_from_this()](error_code error, size_t) {
    if (error) return self->socket_ended();
    auto message = decode_worker_message(self->body_);
    if (!message) return self->refuse(message.error());
    self->dispatch(std::move(*message));
    self->read_length();
  };
  asio::async_read(socket_, asio::buffer(body_), std::move(got));
}

// Calls of one listener, by the kind of message.
struct Dispatch {
  WorkerListener& listener;
  void operator()(const Listening& listening) const { listener.on_listening(listening.port); }
  void operator()(const Progress& progress) const { listener.on_progress(progress.fraction); }
  void operator()(const Loaded& loaded) const { listener.on_loaded(loaded.memory); }
  void operator()(const Ready&) const { listener.on_ready(); }
  void operator()(runtime::StepResult& result) const { listener.on_step_result(std::move(result)); }
  void operator()(const Failed& failed) const { listener.on_failed(failed.error); }
};

void Session::dispatch(WorkerMessage message) {
  if (!listener_ || refused_) return;
  auto listener = listener_;  // the call may destroy the client
  std::visit(Dispatch{*listener}, message);
}

void Session::refuse(const Error& error) {
  refused_ = true;
  log_warning("worker", "{}: {}", name_, error.text());
  auto listener = listener_;
  if (listener) listener->on_failed(error);
  kill_now();
  // When it was the reading side that stopped, nobody else would notice the end.
  socket_ended();
}

void Session::socket_ended() {
  if (ended_) return;
  ended_ = true;
  error_code ignored;
  socket_.close(ignored);
  kill_after(kExitGrace);
  reap();
}

void Session::kill_after(Duration grace) {
  exit_timer_.expires_after(grace);
  exit_timer_.async_wait([self = shared_from_this()](error_code error) {
    if (error) return;
    if (!self->exit_status_) log_warning("worker", "{}: does not leave, killed", self->name_);
    self->kill_now();
  });
}

void Session::reap() {
  exit_status_ = reap_process(pid_);
  if (!exit_status_) {
    reap_timer_.expires_after(kReapInterval);
    reap_timer_.async_wait([self = shared_from_this()](error_code error) {
      if (!error) self->reap();
    });
    return;
  }
  exit_timer_.cancel();
  if (auto listener = std::exchange(listener_, nullptr)) listener->on_exit(describe_exit(*exit_status_));
}

void Session::detach() {
  listener_.reset();
  if (exit_status_) return;
  kill_now();
  if (!ended_) {
    ended_ = true;
    error_code ignored;
    socket_.close(ignored);
  }
  reap_timer_.cancel();
  exit_timer_.cancel();
  for (int i = 0; i < kReapAttemptsAtEnd && !exit_status_; ++i) {
    exit_status_ = reap_process(pid_);
    if (!exit_status_) std::this_thread::sleep_for(milliseconds(1));
  }
  // A process with much memory takes longer to end; the io_context, while it runs, sees to it.
  if (!exit_status_) reap();
}

class ProcessClient final : public WorkerClient {
 public:
  explicit ProcessClient(std::shared_ptr<Session> session) : session_(std::move(session)) {}
  ~ProcessClient() override { session_->detach(); }

  void load(const LoadRequest& request) override { session_->send(request); }
  void connect(const ConnectRequest& request) override { session_->send(request); }
  void submit(const runtime::Step& step) override { session_->send(step); }
  void shut_down() override { session_->shut_down(); }
  pid_t pid() const override { return session_->pid(); }

 private:
  std::shared_ptr<Session> session_;
};

}  // namespace

Result<std::unique_ptr<WorkerClient>> WorkerClient::start(asio::io_context& io, const Options& options,
                                                          std::shared_ptr<WorkerListener> listener) {
  SHOAL_TRY(ChildProcess child,
            spawn_process(options.executable, {"worker", "--fd", std::to_string(kChildSocket)}));
  auto session = std::make_shared<Session>(io, child.pid, options.name, std::move(listener));
  auto client = std::make_unique<ProcessClient>(session);  // ends the process should the next line fail
  SHOAL_TRY_VOID(session->start(std::move(child.socket)));
  return client;
}

}  // namespace shoal::worker
