#include "link/stream_link.h"

#include <algorithm>
#include <array>
#include <condition_variable>
#include <fmt/format.h>
#include <mutex>
#include <poll.h>
#include <thread>

#include "base/socket.h"
#include "link/spin_budget.h"

namespace shoal::link {
namespace {

constexpr Duration kRecently = milliseconds(50);
constexpr Duration kNap = milliseconds(2);

void relax_processor() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Who moves the bytes: a thread that waits in send() or receive() becomes the driver and looks at the stream
// itself, so a frame costs no hand-over between threads. The others follow: they wait until the driver tells
// them of a change. While nobody waits (the users compute), the keeper, a thread of our own that also
// exchanges heartbeats, moves them. While a Link is in use the keeper only looks every kNap, lest every frame
// wake it on a core where somebody computes; it stays awake for a transfer that it alone moves.
class StreamLink final : public Link {
 public:
  StreamLink(std::unique_ptr<FrameStream> stream, FileDescriptor control, const LinkOptions& options)
      : options_(options),
        peer_(stream->peer()),
        stream_(std::move(stream)),
        spin_(options.spin),
        control_(std::move(control)) {}

  ~StreamLink() override {
    {
      std::lock_guard lock(mutex_);
      stopping_ = true;
      wake_keeper();
    }
    if (keeper_.joinable()) keeper_.join();
    stream_->cut();
  }

  Result<> start() {
    SHOAL_TRY(wake_, socket_pair());
    SHOAL_TRY(driver_wake_, socket_pair());
    keeper_ = std::thread([this] { keep(); });
    return {};
  }

  const std::string& peer() const override { return peer_; }
  std::string_view kind() const override { return stream_->kind(); }
  Result<Buffer> allocate(size_t bytes) override { return stream_->pool().allocate(bytes); }

  Result<> send(Frame frame, TimePoint deadline) override;
  Result<std::optional<Frame>> receive(uint8_t channel, TimePoint deadline) override;
  Result<> close(TimePoint deadline) override;
  void abort() override;

 private:
  FrameQueues& queues() { return stream_->queues(); }
  std::unexpected<Error> goodbye_error() const {
    return fail(ErrorCode::cancelled, fmt::format("link to {}: it was closed", peer_));
  }

  // Moves bytes until done() or a failure or the deadline (false). The lock is held except while it waits.
  template <class Done>
  Result<bool> wait(std::unique_lock<std::mutex>& lock, TimePoint deadline, Done done);
  void follow(std::unique_lock<std::mutex>& lock, TimePoint deadline);
  void drive(std::unique_lock<std::mutex>& lock, TimePoint deadline, TimePoint now);
  void progress();
  bool note(Result<bool> moved);
  void send_ready();
  void fail_with(Error error);

  void keep();
  void keep_watch(std::unique_lock<std::mutex>& lock, TimePoint now);
  static void lock_beside_driver(std::unique_lock<std::mutex>& lock);
  void exchange_heartbeats(TimePoint now);
  void read_heartbeats();
  void wake_keeper() { signal(wake_.first); }
  static void signal(const FileDescriptor& wake);
  static void drain(const FileDescriptor& wake);

  const LinkOptions options_;
  const std::string peer_;

  std::mutex mutex_;  // guards everything below
  std::condition_variable changed_;
  const std::unique_ptr<FrameStream> stream_;
  SpinBudget spin_;
  std::optional<Error> failure_;
  bool driver_ = false;
  unsigned followers_ = 0;
  unsigned room_waiters_ = 0;  // threads that wait for frames to leave, the driver perhaps among them
  bool moved_ = false;         // since the last progress()
  bool keeper_moves_ = false;  // the keeper moved something when it last looked
  TimePoint last_activity_{};

  FileDescriptor control_;
  TimePoint last_heard_{};
  TimePoint next_beat_{};
  std::pair<FileDescriptor, FileDescriptor> wake_;  // a byte from the first to the second wakes the keeper
  std::pair<FileDescriptor, FileDescriptor> driver_wake_;  // and here the driver
  bool keeper_blind_ = false;  // it sleeps long and would not see data; wake it when the driver leaves
  bool stopping_ = false;
  std::thread keeper_;
};

Result<> StreamLink::send(Frame frame, TimePoint deadline) {
  if (frame.payload.size() > limits::kMaxFrameBytes || frame.channel >= kChannels) {
    return fail(ErrorCode::limit_exceeded, fmt::format("link to {}: a frame of {} bytes on channel {}", peer_,
                                                       frame.payload.size(), frame.channel));
  }
  std::unique_lock lock(mutex_);
  if (failure_) return std::unexpected(*failure_);
  auto ready = [&] { return queues().peer_closed() || queues().has_room(frame.channel); };
  bool done = ready();
  if (!done) {
    ++room_waiters_;
    auto waited = wait(lock, deadline, ready);
    --room_waiters_;
    SHOAL_TRY(done, std::move(waited));
  }
  if (queues().peer_closed()) return goodbye_error();
  if (!done) {
    return fail(ErrorCode::timeout,
                fmt::format("link to {}: {} units wait and none leave", peer_, options_.window_units));
  }
  queues().push(std::move(frame));
  send_ready();
  if (failure_) return std::unexpected(*failure_);
  if (stream_->wants_to_write()) wake_keeper();
  return {};
}

Result<std::optional<Frame>> StreamLink::receive(uint8_t channel, TimePoint deadline) {
  std::unique_lock lock(mutex_);
  std::optional<Frame> frame;
  auto ready = [&] {
    frame = queues().take(channel);
    return frame.has_value() || queues().peer_closed() || stream_->ended();
  };
  SHOAL_TRY(bool done, wait(lock, deadline, ready));
  if (done && !frame) return goodbye_error();
  if (frame) {
    send_ready();  // perhaps credit is due
    if (stream_->wants_to_write()) wake_keeper();
  }
  return frame;
}

Result<> StreamLink::close(TimePoint deadline) {
  std::unique_lock lock(mutex_);
  if (failure_) return std::unexpected(*failure_);
  queues().push_close();
  send_ready();  // another thread may be the driver
  auto said = [&] { return queues().peer_closed() || (queues().close_sent() && !stream_->wants_to_write()); };
  ++room_waiters_;
  auto waited = wait(lock, deadline, said);
  --room_waiters_;
  SHOAL_TRY(bool done, std::move(waited));
  stream_->end_sending();
  if (done) {
    // Reading to the end keeps the system from resetting the connection over bytes that nobody read.
    SHOAL_TRY(done, wait(lock, deadline, [&] { return stream_->ended(); }));
  }
  if (!done) return fail(ErrorCode::timeout, fmt::format("link to {}: no end of it in time", peer_));
  return {};
}

void StreamLink::abort() {
  std::lock_guard lock(mutex_);
  fail_with({ErrorCode::unavailable, fmt::format("link to {} lost: ended on this side", peer_), ""});
}

template <class Done>
Result<bool> StreamLink::wait(std::unique_lock<std::mutex>& lock, TimePoint deadline, Done done) {
  bool began = false;
  while (true) {
    moved_ = false;
    if (!driver_) progress();  // a driver in poll() would not hear of what another thread has read
    bool is_done = done();
    TimePoint now = std::chrono::steady_clock::now();
    // While bytes flow the core is well used; only a wait without any is told from a lost core.
    if (!driver_ && (moved_ || !began)) spin_.begin(now);
    began = began || !driver_;
    bool late = now >= deadline;
    if (is_done || failure_ || late) {
      if (began && !driver_) spin_.end();
      if (followers_ != 0) changed_.notify_all();  // one of them drives next
      if (keeper_blind_) wake_keeper();
      if (is_done || !failure_) return is_done;
      return std::unexpected(*failure_);
    }
    if (moved_ && followers_ != 0) changed_.notify_all();
    if (driver_) {
      follow(lock, deadline);
    } else {
      drive(lock, deadline, now);
    }
  }
}

void StreamLink::follow(std::unique_lock<std::mutex>& lock, TimePoint deadline) {
  ++followers_;
  if (deadline == TimePoint::max()) {
    changed_.wait(lock);
  } else {
    changed_.wait_until(lock, deadline);
  }
  --followers_;
}

void StreamLink::drive(std::unique_lock<std::mutex>& lock, TimePoint deadline, TimePoint now) {
  if (spin_.may_look_again(now)) {
    const bool offer = spin_.offer_core(now);
    driver_ = true;
    lock.unlock();
    if (offer) {
      std::this_thread::yield();
    } else {
      relax_processor();
    }
    lock.lock();
    driver_ = false;
    return;
  }
  const std::optional<short> events = stream_->watch(Interest::everything);
  if (!events) return;
  std::array<pollfd, 2> watched = {pollfd{stream_->fd(), *events, 0},
                                   pollfd{driver_wake_.second.get(), POLLIN, 0}};
  driver_ = true;
  lock.unlock();
  ::poll(watched.data(), watched.size(), poll_milliseconds(deadline));
  lock.lock();
  spin_.begin(std::chrono::steady_clock::now());  // what woke us may be the first of more
  if (watched[0].revents != 0) stream_->woken();
  if (watched[1].revents != 0) drain(driver_wake_.second);
  driver_ = false;
}

// Moves what may leave; for threads that are not the driver.
void StreamLink::send_ready() {
  if (failure_ || queues().peer_closed()) return;
  note(stream_->send_ready());
  if (room_waiters_ != 0) {
    changed_.notify_all();
    if (driver_) signal(driver_wake_.first);
  }
}

void StreamLink::progress() {
  if (failure_) return;
  if (note(stream_->receive_ready())) last_heard_ = last_activity_;
  if (queues().peer_closed()) {
    if (!queues().close_sent()) stream_->end_sending();
    return;
  }
  if (!failure_) note(stream_->send_ready());
}

// Whether anything moved.
bool StreamLink::note(Result<bool> moved) {
  if (!moved) fail_with(std::move(moved).error());
  if (!moved || !*moved) return false;
  moved_ = true;
  last_activity_ = std::chrono::steady_clock::now();
  return true;
}

void StreamLink::fail_with(Error error) {
  if (failure_) return;
  failure_ = std::move(error);
  stream_->cut();  // wakes the driver and tells the peer
  ::shutdown(control_.get(), SHUT_RDWR);
  changed_.notify_all();
  wake_keeper();
}

void StreamLink::keep() {
  std::unique_lock lock(mutex_);
  TimePoint last_look = last_heard_ = next_beat_ = std::chrono::steady_clock::now();
  while (!stopping_) {
    TimePoint now = std::chrono::steady_clock::now();
    // A pause of our own (the machine slept, the process was stopped) is not the peer's silence.
    if (now - last_look > options_.lease / 2) last_heard_ = now;
    last_look = now;
    if (!failure_ && !stream_->ended()) exchange_heartbeats(now);
    keep_watch(lock, now);
    if (failure_ || stream_->ended()) continue;
    read_heartbeats();
    moved_ = false;
    if (!driver_) {
      progress();
      keeper_moves_ = moved_;
      if (moved_ && followers_ != 0) changed_.notify_all();
    } else if (stream_->wants_to_write()) {
      send_ready();
    }
  }
}

// Sleeps until something may have to be done.
void StreamLink::keep_watch(std::unique_lock<std::mutex>& lock, TimePoint now) {
  std::array<pollfd, 3> watched = {pollfd{wake_.second.get(), POLLIN, 0}, pollfd{-1, 0, 0}, pollfd{-1, 0, 0}};
  TimePoint until = TimePoint::max();
  if (!failure_ && !stream_->ended()) {
    const bool active = now - last_activity_ < kRecently;
    keeper_blind_ = driver_ && !active;
    until = std::min(next_beat_, last_heard_ + options_.lease);
    if (control_.valid()) watched[1] = {control_.get(), POLLIN, 0};
    const bool nap = active && (driver_ || !(keeper_moves_ || stream_->wants_to_write()));
    if (nap) until = std::min(until, now + kNap);
    std::optional<short> events = 0;
    if (!driver_ && !nap) events = stream_->watch(Interest::everything);
    if (driver_ && stream_->wants_to_write()) events = stream_->watch(Interest::room);
    if (!events) return;
    if (*events != 0) watched[2] = {stream_->fd(), *events, 0};
  }
  lock.unlock();
  ::poll(watched.data(), watched.size(), poll_milliseconds(until));
  lock_beside_driver(lock);
  keeper_blind_ = false;
  if (watched[0].revents != 0) drain(wake_.second);
  if (watched[2].revents != 0 && !driver_) stream_->woken();
}

// A driver that spins holds the lock nearly always and takes it back at once. To queue for it would cost the
// driver a system call each time, and the keeper would still not get it; so it only tries.
void StreamLink::lock_beside_driver(std::unique_lock<std::mutex>& lock) {
  constexpr int kTriesInARow = 50;
  for (int tries = 1; !lock.try_lock(); ++tries) {
    if (tries % kTriesInARow != 0) {
      relax_processor();
    } else {
      std::this_thread::sleep_for(kNap);
    }
  }
}

void StreamLink::exchange_heartbeats(TimePoint now) {
  read_heartbeats();
  if (now >= next_beat_) {
    std::byte beat{1};
    iovec part{&beat, 1};
    if (control_.valid()) send_some(control_.get(), std::span(&part, 1));
    next_beat_ = now + options_.heartbeat;
  }
  if (now - last_heard_ < options_.lease || queues().peer_closed()) return;
  fail_with({ErrorCode::unavailable,
             fmt::format("link to {} lost: silent for {:.0f} ms", peer_, to_milliseconds(now - last_heard_)),
             ""});
}

void StreamLink::read_heartbeats() {
  std::array<std::byte, 64> beats;
  while (control_.valid()) {
    Transfer transfer = receive_some(control_.get(), beats);
    if (transfer.status == TransferStatus::moved) {
      last_heard_ = std::chrono::steady_clock::now();
    } else if (transfer.status == TransferStatus::would_block) {
      return;
    } else {
      control_.reset();  // the data connection or the lease will tell what became of the peer
    }
  }
}

void StreamLink::signal(const FileDescriptor& wake) {
  std::byte byte{1};
  iovec part{&byte, 1};
  send_some(wake.get(), std::span(&part, 1));
}

void StreamLink::drain(const FileDescriptor& wake) {
  std::array<std::byte, 64> drained;
  receive_some(wake.get(), drained);
}

}  // namespace

Result<std::unique_ptr<Link>> make_stream_link(std::unique_ptr<FrameStream> stream, FileDescriptor control,
                                               const LinkOptions& options) {
  auto link = std::make_unique<StreamLink>(std::move(stream), std::move(control), options);
  SHOAL_TRY_VOID(link->start());
  return link;
}

}  // namespace shoal::link
