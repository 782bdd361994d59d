#include "link/verbs_link.h"

#include <algorithm>
#include <condition_variable>
#include <fmt/format.h>
#include <mutex>
#include <thread>

#include "link/spin_budget.h"
#include "link/verbs_bootstrap.h"
#include "link/verbs_stream.h"

namespace shoal::link {
namespace {

constexpr uint64_t kPoolBytes = 2 * limits::kGiB;
constexpr int kNapShare = 16;                        // of the time waited so far
constexpr Duration kShortestNap = microseconds(50);  // what a system's timer takes anyway
constexpr Duration kLongestNap = microseconds(400);
constexpr Duration kRecently = milliseconds(50);
constexpr Duration kKeeperNap = microseconds(200);  // while something moved recently
constexpr Duration kKeeperRest = milliseconds(2);
constexpr Duration kListen = milliseconds(5);  // between looks at the tcp Link

void relax_processor() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

TimePoint now() {
  return std::chrono::steady_clock::now();
}

// Whoever waits in send() or receive() polls the queue pair itself; while nobody does (the users compute) the
// keeper, a thread of our own, moves the bytes. The keeper also listens to the tcp Link and tells the peer
// over it, once a heartbeat, how many chunks have left.
class VerbsLink final : public Link {
 public:
  VerbsLink(std::unique_ptr<Link> tcp, VerbsIntroduction introduction, const LinkOptions& options)
      : options_(options),
        peer_(tcp->peer()),
        pool_(BufferPool::create(kPoolBytes)),
        tcp_(std::move(tcp)),
        stream_(std::move(introduction.queue), introduction.peer_slot_count,
                {introduction.own_nonce, introduction.peer_nonce}, peer_, options.window_units, pool_),
        spin_(options.spin),
        keeper_([this] { keep(); }) {}

  ~VerbsLink() override {
    {
      std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    keeper_wake_.notify_all();
    keeper_.join();
  }

  std::string_view kind() const override { return "verbs"; }
  const std::string& peer() const override { return peer_; }
  Result<Buffer> allocate(size_t bytes) override { return pool_->allocate(bytes); }

  Result<> send(Frame frame, TimePoint deadline) override;
  Result<std::optional<Frame>> receive(uint8_t channel, TimePoint deadline) override;
  Result<> close(TimePoint deadline) override;
  void abort() override;

 private:
  FrameQueues& queues() { return stream_.queues(); }
  std::unexpected<Error> goodbye_error() const {
    return fail(ErrorCode::cancelled, fmt::format("link to {}: it was closed", peer_));
  }
  void fail_with(Error error);
  void lose(const std::string& why) {
    fail_with({ErrorCode::unavailable, fmt::format("link to {} lost: {}", peer_, why), ""});
  }

  // Moves bytes until done() or a failure or the deadline (false). The lock is held except while it waits.
  template <class Done>
  Result<bool> wait(std::unique_lock<std::mutex>& lock, TimePoint deadline, Done done);
  void rest(std::unique_lock<std::mutex>& lock, TimePoint until, TimePoint time);
  void progress();
  void note(Result<bool> moved);

  void keep();
  void listen(TimePoint time);
  void tell_count();
  void hear_count(uint32_t count, TimePoint time);
  void check_promise(TimePoint time);

  const LinkOptions options_;
  const std::string peer_;
  const std::shared_ptr<BufferPool> pool_;
  const std::unique_ptr<Link> tcp_;

  std::mutex mutex_;  // guards everything below
  std::condition_variable changed_;
  std::condition_variable keeper_wake_;
  VerbsStream stream_;
  std::optional<Error> failure_;
  SpinBudget spin_;
  unsigned sleepers_ = 0;
  bool moved_ = false;  // since it was last reset
  bool closing_ = false;
  bool stopping_ = false;
  TimePoint last_activity_{};

  TimePoint next_listen_{};
  TimePoint next_count_{};
  uint32_t told_count_ = 0;
  std::optional<TimePoint> goodbye_due_;  // tcp said goodbye before the last frame was here
  // The peer says that so many chunks have left it; by then they should be here.
  struct Promise {
    uint32_t chunks;
    TimePoint due;
  };
  std::optional<Promise> promise_;
  std::thread keeper_;
};

Result<> VerbsLink::send(Frame frame, TimePoint deadline) {
  if (frame.payload.size() > limits::kMaxFrameBytes || frame.channel >= kChannels) {
    return fail(ErrorCode::limit_exceeded, fmt::format("link to {}: a frame of {} bytes on channel {}", peer_,
                                                       frame.payload.size(), frame.channel));
  }
  std::unique_lock lock(mutex_);
  auto ready = [&] { return queues().peer_closed() || queues().has_room(frame.channel); };
  SHOAL_TRY(bool done, wait(lock, deadline, ready));
  if (queues().peer_closed()) return goodbye_error();
  if (!done) {
    return fail(ErrorCode::timeout,
                fmt::format("link to {}: {} units wait and none leave", peer_, options_.window_units));
  }
  queues().push(std::move(frame));
  if (!failure_) note(stream_.send_ready());
  if (failure_) return std::unexpected(*failure_);
  return {};
}

Result<std::optional<Frame>> VerbsLink::receive(uint8_t channel, TimePoint deadline) {
  std::unique_lock lock(mutex_);
  std::optional<Frame> frame;
  auto ready = [&] {
    frame = queues().take(channel);
    return frame.has_value() || queues().peer_closed();
  };
  SHOAL_TRY(bool done, wait(lock, deadline, ready));
  if (done && !frame) return goodbye_error();
  if (frame && !failure_ && !queues().peer_closed()) note(stream_.send_ready());  // perhaps credit is due
  return frame;
}

Result<> VerbsLink::close(TimePoint deadline) {
  std::unique_lock lock(mutex_);
  if (failure_) return std::unexpected(*failure_);
  queues().push_close();
  auto said = [&] { return queues().peer_closed() || (queues().close_sent() && stream_.idle()); };
  SHOAL_TRY(bool done, wait(lock, deadline, said));
  if (!done) return fail(ErrorCode::timeout, fmt::format("link to {}: no end of it in time", peer_));
  closing_ = true;
  lock.unlock();
  return tcp_->close(deadline);
}

void VerbsLink::abort() {
  std::lock_guard lock(mutex_);
  lose("ended on this side");
}

void VerbsLink::fail_with(Error error) {
  if (failure_) return;
  failure_ = std::move(error);
  tcp_->abort();  // tells the peer
  changed_.notify_all();
}

template <class Done>
Result<bool> VerbsLink::wait(std::unique_lock<std::mutex>& lock, TimePoint deadline, Done done) {
  bool began = false;
  TimePoint waits_since{};
  while (true) {
    moved_ = false;
    progress();
    bool is_done = done();
    TimePoint time = now();
    if (!std::exchange(began, true) || moved_) {
      spin_.begin(time);
      waits_since = time;
    }
    if (moved_ && sleepers_ != 0) changed_.notify_all();  // it may be theirs
    if (is_done || failure_ || time >= deadline) {
      spin_.end();
      if (is_done || !failure_) return is_done;
      return std::unexpected(*failure_);
    }
    rest(lock, std::min(deadline, time + (time - waits_since) / kNapShare), time);
  }
}

// Between two looks. A nap makes the wait longer by a small part of what it is anyway; one that would be
// shorter than any system naps is an offer of the core.
void VerbsLink::rest(std::unique_lock<std::mutex>& lock, TimePoint until, TimePoint time) {
  bool looks_again = spin_.may_look_again(time);
  if (!looks_again && until - time >= kShortestNap) {
    ++sleepers_;
    changed_.wait_until(lock, std::min(until, time + kLongestNap));
    --sleepers_;
    return;
  }
  bool offers = !looks_again || spin_.offer_core(time);
  lock.unlock();
  if (offers) {
    std::this_thread::yield();
  } else {
    relax_processor();
  }
  lock.lock();
}

void VerbsLink::progress() {
  if (failure_ || closing_ || queues().peer_closed()) return;
  note(stream_.receive_ready());
  if (!failure_ && !queues().peer_closed()) note(stream_.send_ready());
}

void VerbsLink::note(Result<bool> moved) {
  if (!moved) return fail_with(std::move(moved).error());
  if (!*moved) return;
  moved_ = true;
  last_activity_ = now();
}

void VerbsLink::keep() {
  std::unique_lock lock(mutex_);
  next_count_ = now() + options_.heartbeat;
  while (!stopping_) {
    moved_ = false;
    progress();
    if (moved_ && sleepers_ != 0) changed_.notify_all();
    TimePoint time = now();
    bool over = failure_ || closing_ || queues().peer_closed();
    if (!over && time >= next_listen_) {
      listen(time);
      next_listen_ = time + kListen;
    }
    if (over) {
      keeper_wake_.wait(lock, [this] { return stopping_; });
    } else {
      bool active = time - last_activity_ < kRecently;
      keeper_wake_.wait_for(lock, active ? kKeeperNap : kKeeperRest);
    }
  }
}

// What came over tcp: counts, a goodbye, the loss of the peer.
void VerbsLink::listen(TimePoint time) {
  while (!goodbye_due_) {
    auto frame = tcp_->receive(kVerbsControlChannel, TimePoint{});
    if (frame && *frame) {
      hear_count(static_cast<uint32_t>((**frame).step), time);
      continue;
    }
    if (frame) break;
    progress();  // what arrived before the end counts
    if (queues().peer_closed()) return;
    if (frame.error().code != ErrorCode::cancelled) return fail_with(std::move(frame).error());
    goodbye_due_ = time + options_.heartbeat;
  }
  if (goodbye_due_ && time >= *goodbye_due_) return lose("it said goodbye, but its last frames never came");
  check_promise(time);
  if (failure_ || goodbye_due_ || time < next_count_) return;
  next_count_ = time + options_.heartbeat;
  tell_count();
}

// Silence while nothing has left: what we say to a peer is no sign of its life, and tcp takes it for
// activity.
void VerbsLink::tell_count() {
  uint32_t count = stream_.chunks_completed();
  if (count == told_count_) return;
  // Without room tcp itself is stuck, and its lease will end the Link.
  if (tcp_->send({kVerbsControlChannel, count, Buffer()}, TimePoint{})) told_count_ = count;
}

void VerbsLink::hear_count(uint32_t count, TimePoint time) {
  if (promise_ || static_cast<int32_t>(count - stream_.chunks_received()) <= 0) return;
  promise_ = Promise{count, time + options_.heartbeat};
}

void VerbsLink::check_promise(TimePoint time) {
  if (!promise_) return;
  auto missing = static_cast<int32_t>(promise_->chunks - stream_.chunks_received());
  if (missing <= 0) {
    promise_.reset();
  } else if (time >= promise_->due) {
    lose(fmt::format("{} chunks left it and never came: the device dropped SENDs", missing));
  }
}

}  // namespace

Result<VerbsUpgrade> upgrade_to_verbs(std::unique_ptr<Link> tcp,
                                      const Result<std::shared_ptr<const VerbsLibrary>>& library,
                                      const std::string& local_address, TimePoint deadline,
                                      const LinkOptions& options) {
  auto open = [&]() -> Result<std::shared_ptr<const VerbsDevice>> {
    if (!library) return std::unexpected(library.error());
    SHOAL_TRY(VerbsDevice device, VerbsDevice::find(*library, local_address));
    return std::make_shared<const VerbsDevice>(std::move(device));
  };
  SHOAL_TRY(VerbsIntroduction introduction, introduce_verbs(*tcp, open(), deadline));
  if (introduction.refusal) return VerbsUpgrade{std::move(tcp), std::move(introduction.refusal)};
  return VerbsUpgrade{std::make_unique<VerbsLink>(std::move(tcp), std::move(introduction), options), {}};
}

}  // namespace shoal::link
