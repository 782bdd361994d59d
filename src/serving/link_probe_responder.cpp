#include "serving/link_probe_responder.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <poll.h>

#include "base/limits.h"
#include "base/socket.h"
#include "base/system.h"

namespace shoal::serving {
namespace {

constexpr int kBacklog = 16;
constexpr int kPortAttempts = 8;  // a port that is free on one address may be taken on another
constexpr uint64_t kMaxDataBytes = kProbeBurstBytes + 16 * kMaxProbeChunkBytes;
constexpr size_t kReceiveBytes = 256 * 1024;
constexpr Duration kIdleLook = milliseconds(500);
constexpr Duration kSpin = microseconds(50);

Result<std::vector<FileDescriptor>> listen_on_all(const std::vector<std::string>& addresses, uint16_t& port) {
  std::vector<FileDescriptor> listeners;
  for (const std::string& text : addresses) {
    SHOAL_TRY(const SocketAddress address, SocketAddress::parse(text, port));
    SHOAL_TRY(FileDescriptor listener, listen_tcp(address, kBacklog));
    if (port == 0) {
      SHOAL_TRY(port, local_port(listener));
    }
    listeners.push_back(std::move(listener));
  }
  return listeners;
}

}  // namespace

// What a client may do, and has done. Any byte out of place ends it.
class LinkProbeResponder::Connection {
 public:
  Connection(FileDescriptor socket, TimePoint now)
      : socket_(std::move(socket)), deadline_(now + kHelloTime), received_(kReceiveBytes) {}

  int socket() const { return socket_.get(); }
  TimePoint deadline() const { return deadline_; }
  const std::optional<ProbeNonce>& nonce() const { return nonce_; }

  // Takes what has arrived; false: the connection is over.
  template <class IsAllowed>
  bool receive(IsAllowed is_allowed) {
    const Transfer got = receive_some(socket_.get(), received_);
    if (got.status == TransferStatus::would_block) return true;
    if (got.status != TransferStatus::moved) return false;
    const TimePoint now = clock_.now();
    ByteView bytes = ByteView(received_).first(got.bytes);
    while (!bytes.empty()) {
      if (data_left_ > 0) {
        const size_t count = std::min<uint64_t>(data_left_, bytes.size());
        data_left_ -= count, data_bytes_ += count;
        bytes = bytes.subspan(count);
        continue;
      }
      const size_t count = std::min(frame_.size() - frame_bytes_, bytes.size());
      std::memcpy(frame_.data() + frame_bytes_, bytes.data(), count);
      frame_bytes_ += count;
      bytes = bytes.subspan(count);
      if (frame_bytes_ < frame_.size()) break;
      frame_bytes_ = 0;
      note_arrival(now);
      if (!(nonce_ ? obey() : greet(is_allowed, now))) return false;
    }
    note_arrival(now);
    return true;
  }

 private:
  template <class IsAllowed>
  bool greet(IsAllowed is_allowed, TimePoint now) {
    const Result<ProbeNonce> nonce = read_probe_hello(frame_);
    if (!nonce || !is_allowed(*nonce)) return false;
    nonce_ = *nonce;
    deadline_ = now + kMaxProbeTime;
    return true;
  }

  bool obey() {
    const Result<ProbeCommand> command = read_probe_frame(frame_);
    if (!command) return false;
    switch (command->type) {
      case ProbeFrameType::ping:
        pings_ += 1;
        return pings_ <= kMaxProbePings && answer(frame_);
      case ProbeFrameType::data:
        data_left_ = command->value;
        return command->value <= kMaxProbeChunkBytes && data_bytes_ + data_left_ <= kMaxDataBytes;
      case ProbeFrameType::report:
        pings_ += 1;
        return pings_ <= kMaxProbePings &&
               answer(probe_frame(ProbeFrameType::report, static_cast<uint64_t>(arrival_rate(arrivals_))));
    }
    return false;
  }

  void note_arrival(TimePoint now) {
    if (data_bytes_ == 0 || (!arrivals_.empty() && arrivals_.back().bytes == data_bytes_)) return;
    if (!arrivals_.empty() && arrivals_.back().time == now)
      arrivals_.back().bytes = data_bytes_;
    else
      arrivals_.push_back({now, data_bytes_});
  }

  // 32 bytes always fit a socket that is read; one that is not read is of no use to anybody.
  bool answer(ProbeFrame frame) {
    iovec piece{frame.data(), frame.size()};
    const Transfer sent = send_some(socket_.get(), {&piece, 1});
    return sent.status == TransferStatus::moved && sent.bytes == frame.size();
  }

  FileDescriptor socket_;
  SystemClock clock_;
  TimePoint deadline_;
  Bytes received_;
  std::optional<ProbeNonce> nonce_;
  ProbeFrame frame_{};
  size_t frame_bytes_ = 0;
  size_t pings_ = 0;
  uint64_t data_left_ = 0, data_bytes_ = 0;
  std::vector<Arrival> arrivals_;
};

Result<std::unique_ptr<LinkProbeResponder>> LinkProbeResponder::start(
    const std::vector<std::string>& addresses) {
  SHOAL_TRY(auto stop, socket_pair());
  Result<std::vector<FileDescriptor>> listeners;
  uint16_t port = 0;
  for (int attempt = 0; attempt < kPortAttempts; ++attempt) {
    port = 0;
    listeners = listen_on_all(addresses, port);
    if (listeners || listeners.error().code != ErrorCode::conflict) break;
  }
  if (!listeners) return std::unexpected(listeners.error());
  return std::unique_ptr<LinkProbeResponder>(
      new LinkProbeResponder(*std::move(listeners), port, std::move(stop.first), std::move(stop.second)));
}

LinkProbeResponder::LinkProbeResponder(std::vector<FileDescriptor> listeners, uint16_t port,
                                       FileDescriptor stop_read, FileDescriptor stop_write)
    : listeners_(std::move(listeners)),
      port_(port),
      stop_read_(std::move(stop_read)),
      stop_write_(std::move(stop_write)),
      thread_([this] { serve(); }) {}

LinkProbeResponder::~LinkProbeResponder() {
  stop_write_.reset();  // the thread sees its end
  thread_.join();
}

ProbeNonce LinkProbeResponder::allow() {
  const std::array<uint64_t, 2> random = {random_u64(), random_u64()};
  ProbeNonce nonce;
  std::memcpy(nonce.data(), random.data(), nonce.size());
  const TimePoint now = SystemClock().now();
  const std::lock_guard lock(mutex_);
  std::erase_if(allowed_, [&](const auto& one) { return one.second <= now; });
  if (allowed_.size() >= kMaxAllowed) allowed_.clear();
  allowed_[nonce] = now + kAllowedTime;
  return nonce;
}

void LinkProbeResponder::forget(const ProbeNonce& nonce) {
  const std::lock_guard lock(mutex_);
  allowed_.erase(nonce);
}

void LinkProbeResponder::forget_all() {
  const std::lock_guard lock(mutex_);
  allowed_.clear();
}

bool LinkProbeResponder::busy() {
  const TimePoint now = SystemClock().now();
  const std::lock_guard lock(mutex_);
  return std::ranges::any_of(allowed_, [&](const auto& one) { return one.second > now; });
}

bool LinkProbeResponder::is_allowed(const ProbeNonce& nonce) {
  const TimePoint now = SystemClock().now();
  const std::lock_guard lock(mutex_);
  const auto found = allowed_.find(nonce);
  return found != allowed_.end() && found->second > now;
}

void LinkProbeResponder::accept_from(const FileDescriptor& listener) {
  Result<FileDescriptor> socket = accept_tcp(listener);
  if (!socket || !socket->valid() || connections_.size() >= kMaxConnections) return;
  connections_.push_back(std::make_unique<Connection>(*std::move(socket), SystemClock().now()));
}

void LinkProbeResponder::serve() {
  const SystemClock clock;
  TimePoint awake_until{};  // a ping is often followed by the next: sleeping would show in the round trips
  while (true) {
    std::vector<pollfd> polled = {{stop_read_.get(), POLLIN, 0}};
    for (const FileDescriptor& listener : listeners_) polled.push_back({listener.get(), POLLIN, 0});
    const size_t first = polled.size();
    TimePoint wake = clock.now() + kIdleLook;
    for (const auto& connection : connections_) {
      polled.push_back({connection->socket(), POLLIN, 0});
      wake = std::min(wake, connection->deadline());
    }
    ::poll(polled.data(), static_cast<nfds_t>(polled.size()),
           clock.now() < awake_until ? 0 : poll_milliseconds(wake));
    if (polled[0].revents != 0) return;
    const TimePoint now = clock.now();
    const auto allowed = [this](const ProbeNonce& nonce) { return is_allowed(nonce); };
    for (size_t i = 0; i < connections_.size(); ++i) {
      std::unique_ptr<Connection>& connection = connections_[i];
      const bool readable = polled[first + i].revents != 0;
      if (readable && connection->nonce()) awake_until = now + kSpin;
      const bool goes_on = now < connection->deadline() && (!readable || connection->receive(allowed)) &&
                           (!connection->nonce() || is_allowed(*connection->nonce()));
      if (!goes_on) connection.reset();
    }
    std::erase(connections_, nullptr);
    for (size_t i = 1; i < first; ++i)
      if (polled[i].revents != 0) accept_from(listeners_[i - 1]);
  }
}

}  // namespace shoal::serving
