#include "link/memory_link.h"

#include <algorithm>
#include <array>
#include <condition_variable>
#include <fmt/format.h>
#include <mutex>
#include <random>

namespace shoal::link {
namespace {

constexpr uint64_t kPoolBytes = 2 * limits::kGiB;

TimePoint now() {
  return std::chrono::steady_clock::now();
}

struct Travelling {
  OutgoingFrame frame;
  TimePoint due;
};

}  // namespace

// Both ends and what travels between them, under one lock.
class MemoryWire {
 public:
  MemoryWire(const LinkOptions& link_options, const WireFaults& wire_faults)
      : options(link_options),
        faults(wire_faults),
        random(wire_faults.seed),
        ends{End(FrameQueues("second", link_options.window_units)),
             End(FrameQueues("first", link_options.window_units))} {}

  struct End {
    explicit End(FrameQueues own_queues) : queues(std::move(own_queues)) {}
    FrameQueues queues;
    std::deque<Travelling> arriving;
    std::optional<Error> failure;
    std::optional<TimePoint> frozen_since;
  };

  // Moves every frame that may move.
  void move() {
    for (bool moved = true; moved;) {
      moved = false;
      for (size_t i = 0; i < 2; ++i) {
        while (depart(i)) moved = true;
        while (arrive(i)) moved = true;
      }
      if (moved) changed.notify_all();
    }
    for (size_t i = 0; i < 2; ++i) check_lease(i);
  }

  void fail_end(size_t i, const std::string& why, ErrorCode code = ErrorCode::unavailable) {
    if (ends[i].failure) return;
    ends[i].failure = Error{code, why, ""};
    changed.notify_all();
  }
  void fail_both(const std::string& why) {
    fail_end(0, "link to second lost: " + why);
    fail_end(1, "link to first lost: " + why);
  }

  // When something may happen without anybody's doing.
  TimePoint next_event() const {
    TimePoint next = TimePoint::max();
    for (const End& end : ends) {
      if (!end.arriving.empty()) next = std::min(next, end.arriving.front().due);
      if (end.frozen_since) next = std::min(next, *end.frozen_since + options.lease);
    }
    return next;
  }

  const LinkOptions options;
  const WireFaults faults;
  std::mutex mutex;  // guards everything below
  std::condition_variable changed;
  std::mt19937_64 random;
  std::array<End, 2> ends;
  uint64_t carried_bytes = 0;
  bool damage_next = false;

 private:
  bool happens(double probability) {
    return probability > 0 && std::uniform_real_distribution<double>(0, 1)(random) < probability;
  }

  bool depart(size_t i) {
    End& end = ends[i];
    if (end.failure || end.frozen_since) return false;
    auto frame = end.queues.next();
    if (!frame) return false;
    carried_bytes += frame->payload.size();
    if (carried_bytes > faults.cut_after_bytes) fail_both("the wire was cut");
    if (happens(faults.drop)) return true;
    if (happens(faults.damage) || std::exchange(damage_next, false)) {
      std::span<std::byte> target =
          frame->payload.size() != 0 ? frame->payload.bytes() : std::span(frame->header);
      target[random() % target.size()] ^= std::byte{0x10};
    }
    auto& lane = ends[1 - i].arriving;
    lane.push_back({std::move(*frame), now() + faults.delay});
    if (lane.size() >= 2 && happens(faults.swap))
      std::swap(lane[lane.size() - 1].frame, lane[lane.size() - 2].frame);
    return true;
  }

  bool arrive(size_t i) {
    End& end = ends[i];
    if (end.failure || end.frozen_since || end.arriving.empty() || end.arriving.front().due > now())
      return false;
    OutgoingFrame frame = std::move(end.arriving.front().frame);
    end.arriving.pop_front();
    auto header = end.queues.open(frame.header);
    auto delivered = header ? end.queues.deliver(*header, std::move(frame.payload))
                            : Result<>(std::unexpected(header.error()));
    if (!delivered) {
      fail_end(i, delivered.error().message, delivered.error().code);
      fail_both("the other side gave up");
    }
    return true;
  }

  void check_lease(size_t i) {
    const auto& silent_since = ends[1 - i].frozen_since;
    if (!silent_since || now() - *silent_since < options.lease) return;
    fail_end(i, fmt::format("link to {} lost: silent for a lease", i == 0 ? "second" : "first"));
  }
};

namespace {

class MemoryLink final : public Link {
 public:
  MemoryLink(std::shared_ptr<MemoryWire> wire, size_t end)
      : wire_(std::move(wire)),
        end_(end),
        peer_(end == 0 ? "second" : "first"),
        pool_(BufferPool::create(kPoolBytes)) {}
  ~MemoryLink() override {
    std::lock_guard lock(wire_->mutex);
    wire_->move();
    if (!queues().close_sent()) wire_->fail_both("one end is gone");
  }

  std::string_view kind() const override { return "memory"; }
  const std::string& peer() const override { return peer_; }
  Result<Buffer> allocate(size_t bytes) override { return pool_->allocate(bytes); }

  Result<> send(Frame frame, TimePoint deadline) override {
    if (frame.payload.size() > limits::kMaxFrameBytes || frame.channel >= kChannels) {
      return fail(ErrorCode::limit_exceeded, fmt::format("a frame of {} bytes", frame.payload.size()));
    }
    std::unique_lock lock(wire_->mutex);
    auto ready = [&] { return queues().peer_closed() || queues().has_room(frame.channel); };
    SHOAL_TRY(bool done, wait(lock, deadline, ready));
    if (queues().peer_closed()) return goodbye_error();
    if (const auto& failure = wire_->ends[end_].failure) return std::unexpected(*failure);
    if (!done) return fail(ErrorCode::timeout, fmt::format("link to {}: no room", peer_));
    queues().push(std::move(frame));
    wire_->move();
    return {};
  }

  Result<std::optional<Frame>> receive(uint8_t channel, TimePoint deadline) override {
    std::unique_lock lock(wire_->mutex);
    std::optional<Frame> frame;
    auto ready = [&] {
      frame = queues().take(channel);
      return frame.has_value() || queues().peer_closed();
    };
    SHOAL_TRY(bool done, wait(lock, deadline, ready));
    if (done && !frame) return goodbye_error();
    wire_->move();  // perhaps credit is due
    return frame;
  }

  Result<> close(TimePoint deadline) override {
    std::unique_lock lock(wire_->mutex);
    queues().push_close();
    auto said = [&] { return queues().peer_closed() || queues().close_sent(); };
    SHOAL_TRY(bool done, wait(lock, deadline, said));
    if (!done) return fail(ErrorCode::timeout, fmt::format("link to {}: no end of it in time", peer_));
    return {};
  }

  void abort() override {
    std::lock_guard lock(wire_->mutex);
    wire_->fail_both("ended on one side");
  }

 private:
  FrameQueues& queues() { return wire_->ends[end_].queues; }
  std::unexpected<Error> goodbye_error() const {
    return fail(ErrorCode::cancelled, fmt::format("link to {}: it was closed", peer_));
  }

  template <class Done>
  Result<bool> wait(std::unique_lock<std::mutex>& lock, TimePoint deadline, Done done) {
    while (true) {
      wire_->move();
      if (done()) return true;
      if (const auto& failure = wire_->ends[end_].failure) return std::unexpected(*failure);
      if (now() >= deadline) return false;
      TimePoint until = std::min(deadline, wire_->next_event());
      // A far deadline as a number overflows in some libraries' conversions.
      wire_->changed.wait_until(lock, std::min(until, now() + seconds(1)));
    }
  }

  std::shared_ptr<MemoryWire> wire_;
  const size_t end_;
  const std::string peer_;
  std::shared_ptr<BufferPool> pool_;
};

}  // namespace

MemoryLinks make_memory_links(const LinkOptions& options, const WireFaults& faults) {
  auto wire = std::make_shared<MemoryWire>(options, faults);
  return {std::make_unique<MemoryLink>(wire, 0), std::make_unique<MemoryLink>(wire, 1), wire};
}

void freeze(MemoryWire& wire, WireEnd end) {
  std::lock_guard lock(wire.mutex);
  wire.ends[end == WireEnd::first ? 0 : 1].frozen_since = now();
  wire.changed.notify_all();
}

void damage_next_frame(MemoryWire& wire) {
  std::lock_guard lock(wire.mutex);
  wire.damage_next = true;
}

void cut(MemoryWire& wire) {
  std::lock_guard lock(wire.mutex);
  wire.fail_both("the wire was cut");
}

}  // namespace shoal::link
