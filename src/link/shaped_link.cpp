#include "link/shaped_link.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <fmt/format.h>
#include <mutex>
#include <thread>

namespace shoal::link {
namespace {

TimePoint now() {
  return std::chrono::steady_clock::now();
}

// Frames wait in a line until they are due; a thread of our own hands them on.
class ShapedLink final : public Link {
 public:
  ShapedLink(std::unique_ptr<Link> inner, const LinkShape& shape, const LinkOptions& options)
      : inner_(std::move(inner)),
        shape_(shape),
        window_bytes_(uint64_t{options.window_units} * BufferPool::kUnitBytes),
        cut_at_(shape.cut_after == Duration::max() ? TimePoint::max() : now() + shape.cut_after),
        carrier_([this] { carry(); }) {}

  ~ShapedLink() override {
    {
      std::lock_guard lock(mutex_);
      stopping_ = true;
      if (!line_.empty()) inner_->abort();  // or the carrier might wait in it for ever
    }
    changed_.notify_all();
    carrier_.join();
  }

  std::string_view kind() const override { return inner_->kind(); }
  const std::string& peer() const override { return inner_->peer(); }
  Result<Buffer> allocate(size_t bytes) override { return inner_->allocate(bytes); }

  Result<> send(Frame frame, TimePoint deadline) override {
    std::unique_lock lock(mutex_);
    auto room = [&] { return failure_.has_value() || waiting_bytes_ < window_bytes_; };
    if (!wait(lock, deadline, room))
      return fail(ErrorCode::timeout, fmt::format("link to {}: no room", peer()));
    if (failure_) return std::unexpected(*failure_);
    uint64_t bytes = frame.payload.size();
    Duration transfer{};
    if (shape_.bytes_per_second > 0) {
      transfer = Duration(static_cast<int64_t>(static_cast<double>(bytes) / shape_.bytes_per_second * 1e9));
    }
    busy_until_ = std::max(busy_until_, now()) + transfer;
    waiting_bytes_ += bytes;
    line_.push_back({std::move(frame), busy_until_ + shape_.latency});
    changed_.notify_all();
    return {};
  }

  Result<std::optional<Frame>> receive(uint8_t channel, TimePoint deadline) override {
    return inner_->receive(channel, deadline);
  }

  Result<> close(TimePoint deadline) override {
    {
      std::unique_lock lock(mutex_);
      bool done = wait(lock, deadline, [&] { return failure_.has_value() || line_.empty(); });
      if (failure_) return std::unexpected(*failure_);
      if (!done) return fail(ErrorCode::timeout, fmt::format("link to {}: no end of it in time", peer()));
    }
    return inner_->close(deadline);
  }

  void abort() override { inner_->abort(); }

 private:
  struct Waiting {
    Frame frame;
    TimePoint due;
  };

  template <class Done>
  bool wait(std::unique_lock<std::mutex>& lock, TimePoint deadline, Done done) {
    if (deadline == TimePoint::max()) {
      changed_.wait(lock, done);
      return true;
    }
    return changed_.wait_until(lock, deadline, done);
  }

  void carry() {
    std::unique_lock lock(mutex_);
    while (!stopping_) {
      TimePoint next = line_.empty() ? cut_at_ : std::min(cut_at_, line_.front().due);
      if (now() >= cut_at_) return give_up();
      if (line_.empty() || now() < next) {
        if (next == TimePoint::max()) {
          changed_.wait(lock);
        } else {
          changed_.wait_until(lock, next);
        }
        continue;
      }
      if (!hand_on(lock)) return;
    }
  }

  bool hand_on(std::unique_lock<std::mutex>& lock) {
    uint64_t bytes = line_.front().frame.payload.size();
    carried_bytes_ += bytes;
    if (carried_bytes_ > shape_.cut_after_bytes) {
      give_up();
      return false;
    }
    Frame frame = std::move(line_.front().frame);
    lock.unlock();
    auto sent = inner_->send(std::move(frame));
    lock.lock();
    line_.pop_front();
    waiting_bytes_ -= bytes;
    if (!sent) failure_ = std::move(sent).error();
    changed_.notify_all();
    return !failure_;
  }

  void give_up() {
    inner_->abort();
    failure_ = Error{ErrorCode::unavailable, fmt::format("link to {} lost: cut", peer()), ""};
    changed_.notify_all();
  }

  const std::unique_ptr<Link> inner_;
  const LinkShape shape_;
  const uint64_t window_bytes_;
  const TimePoint cut_at_;

  std::mutex mutex_;  // guards everything below
  std::condition_variable changed_;
  std::deque<Waiting> line_;
  uint64_t waiting_bytes_ = 0;
  uint64_t carried_bytes_ = 0;
  TimePoint busy_until_{};
  std::optional<Error> failure_;
  bool stopping_ = false;
  std::thread carrier_;
};

}  // namespace

std::unique_ptr<Link> make_shaped_link(std::unique_ptr<Link> inner, const LinkShape& shape,
                                       const LinkOptions& options) {
  return std::make_unique<ShapedLink>(std::move(inner), shape, options);
}

}  // namespace shoal::link
