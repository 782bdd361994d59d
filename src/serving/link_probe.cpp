#include "serving/link_probe.h"

#include <algorithm>
#include <arpa/inet.h>
#include <cmath>
#include <cstring>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>

#include "base/bytes.h"
#include "base/socket.h"

namespace shoal::serving {
namespace {

constexpr std::array<char, 8> kMagic = {'s', 'h', 'o', 'a', 'l', 'p', 'r', '1'};
constexpr size_t kPings = 48, kLeastPings = 8;
constexpr Duration kPingTime = milliseconds(700);  // then fewer pings must do
constexpr Duration kConnectTime = seconds(1);
constexpr int kStartRoundTrips = 8;       // in which TCP finds its speed
constexpr int kUnsentBytes = 128 * 1024;  // that wait in the socket, so that a burst ends when it should
constexpr int kBursts = 4;
constexpr double kTellingSeconds = 0.010;  // that scheduling does not blur
constexpr Duration kLookInterval = milliseconds(50);
constexpr Duration kSpin = microseconds(50);

// One connection to a responder; every wait ends at the deadline or when it is given up.
class Probe {
 public:
  Probe(FileDescriptor socket, TimePoint deadline, const std::atomic<bool>& cancelled)
      : socket_(std::move(socket)), deadline_(deadline), cancelled_(cancelled) {
#ifdef TCP_NOTSENT_LOWAT
    ::setsockopt(socket_.get(), IPPROTO_TCP, TCP_NOTSENT_LOWAT, &kUnsentBytes, sizeof(kUnsentBytes));
#endif
  }

  const FileDescriptor& socket() const { return socket_; }

  Result<> send(ByteView bytes) {
    while (!bytes.empty()) {
      SHOAL_TRY_VOID(wait(POLLOUT));
      iovec piece{const_cast<std::byte*>(bytes.data()), bytes.size()};
      const Transfer sent = send_some(socket_.get(), {&piece, 1});
      if (sent.status == TransferStatus::would_block) continue;
      if (sent.status != TransferStatus::moved) return hung_up();
      bytes = bytes.subspan(sent.bytes);
    }
    return {};
  }

  Result<ProbeFrame> receive() {
    ProbeFrame frame;
    const TimePoint sleepy = clock_.now() + kSpin;
    for (size_t have = 0; have < frame.size();) {
      const Transfer got = receive_some(socket_.get(), std::span(frame).subspan(have));
      if (got.status == TransferStatus::moved) have += got.bytes;
      if (got.status == TransferStatus::ended || got.status == TransferStatus::failed) return hung_up();
      if (got.status == TransferStatus::would_block && clock_.now() > sleepy) {
        SHOAL_TRY_VOID(wait(POLLIN));
      }
    }
    return frame;
  }

  Result<ProbeCommand> exchange(const ProbeFrame& frame) {
    SHOAL_TRY_VOID(send(frame));
    SHOAL_TRY(const ProbeFrame answer, receive());
    return read_probe_frame(answer);
  }

 private:
  Result<> wait(short events) const {
    while (true) {
      if (cancelled_) return fail(ErrorCode::cancelled, "the measurement was given up");
      if (clock_.now() >= deadline_) return fail(ErrorCode::timeout, "the node did not answer in time");
      pollfd waiting{socket_.get(), events, 0};
      const TimePoint look = std::min(deadline_, clock_.now() + kLookInterval);
      if (::poll(&waiting, 1, poll_milliseconds(look)) > 0) return {};
    }
  }
  static std::unexpected<Error> hung_up() {
    return fail(ErrorCode::unavailable, "the node hung up on the measurement");
  }

  FileDescriptor socket_;
  SystemClock clock_;
  TimePoint deadline_;
  const std::atomic<bool>& cancelled_;
};

Result<std::string> local_address(const FileDescriptor& socket) {
  sockaddr_storage storage{};
  socklen_t size = sizeof(storage);
  if (::getsockname(socket.get(), reinterpret_cast<sockaddr*>(&storage), &size) != 0)
    return fail_errno("cannot read the address of", "socket");
  std::array<char, INET6_ADDRSTRLEN> text{};
  const void* address = storage.ss_family == AF_INET6
                            ? static_cast<const void*>(&reinterpret_cast<sockaddr_in6&>(storage).sin6_addr)
                            : &reinterpret_cast<sockaddr_in&>(storage).sin_addr;
  ::inet_ntop(storage.ss_family, address, text.data(), text.size());
  return std::string(text.data());
}

// Microseconds of each ping, ascending.
Result<std::vector<double>> ping(Probe& probe) {
  const SystemClock clock;
  const TimePoint end = clock.now() + kPingTime;
  std::vector<double> times;
  // The first waits for the other side to take the connection up.
  SHOAL_TRY_VOID(probe.exchange(probe_frame(ProbeFrameType::ping, 0)));
  while (times.size() < kPings && (times.size() < kLeastPings || clock.now() < end)) {
    const TimePoint begin = clock.now();
    const uint64_t number = times.size() + 1;
    SHOAL_TRY(const ProbeCommand answer, probe.exchange(probe_frame(ProbeFrameType::ping, number)));
    if (answer.type != ProbeFrameType::ping || answer.value != number)
      return fail(ErrorCode::malformed, "the node answered another ping than it was asked");
    times.push_back(to_seconds(clock.now() - begin) * 1e6);
  }
  std::ranges::sort(times);
  return times;
}

// Sends for so long or so much, whichever is first, and hears at which rate it arrived. `sent` gets the
// bytes.
Result<double> send_burst(Probe& probe, uint64_t most_bytes, TimePoint end, uint64_t& sent) {
  const SystemClock clock;
  Bytes chunk(sizeof(ProbeFrame) + kMaxProbeChunkBytes);
  const ProbeFrame header = probe_frame(ProbeFrameType::data, kMaxProbeChunkBytes);
  std::memcpy(chunk.data(), header.data(), header.size());
  for (sent = 0; sent < most_bytes && clock.now() < end; sent += kMaxProbeChunkBytes) {
    SHOAL_TRY_VOID(probe.send(chunk));
  }
  SHOAL_TRY(const ProbeCommand answer, probe.exchange(probe_frame(ProbeFrameType::report, 0)));
  if (answer.type != ProbeFrameType::report) return fail(ErrorCode::malformed, "the node reported no rate");
  return static_cast<double>(answer.value);
}

// On a slow path the receiver's times are the best there are. On a fast one the first burst is over before
// they mean much, or lies ready when the receiver wakes up; but TCP has found its speed by then, and further
// bursts can be timed from here: there and back, less a round trip. Waiting for a core only makes them
// slower, so the best counts.
Result<double> burst(Probe& probe, double round_trip_seconds) {
  const SystemClock clock;
  const auto start = std::chrono::duration_cast<Duration>(
      std::chrono::duration<double>(kStartRoundTrips * std::min(round_trip_seconds, 0.1)));
  const TimePoint end = clock.now() + kProbeBurstTime + start;
  uint64_t sent = 0;
  SHOAL_TRY(const double received, send_burst(probe, kProbeBurstBytes / kBursts, end, sent));
  const double half_seconds = static_cast<double>(sent) / 2 / std::max(received, 1.0);
  if (half_seconds >= kTellingSeconds) return received;
  double best = 0;
  for (int i = 1; i < kBursts && (i == 1 || clock.now() < end); ++i) {
    const TimePoint begin = clock.now();
    SHOAL_TRY_VOID(send_burst(probe, kProbeBurstBytes / kBursts, TimePoint::max(), sent));
    const double seconds = to_seconds(clock.now() - begin);
    best = std::max(best, static_cast<double>(sent) / std::max(seconds - round_trip_seconds, seconds / 2));
  }
  return best;
}

double quantile(const std::vector<double>& ascending, double share) {
  const auto rank = static_cast<size_t>(std::ceil(share * static_cast<double>(ascending.size())));
  return ascending[std::max<size_t>(rank, 1) - 1];
}

}  // namespace

ProbeFrame probe_hello(const ProbeNonce& nonce) {
  ProbeFrame frame{};
  std::memcpy(frame.data(), kMagic.data(), kMagic.size());
  std::memcpy(frame.data() + kMagic.size(), nonce.data(), nonce.size());
  return frame;
}

Result<ProbeNonce> read_probe_hello(const ProbeFrame& frame) {
  ProbeNonce nonce;
  std::memcpy(nonce.data(), frame.data() + kMagic.size(), nonce.size());
  if (probe_hello(nonce) != frame) return fail(ErrorCode::malformed, "no hello of a measurement");
  return nonce;
}

ProbeFrame probe_frame(ProbeFrameType type, uint64_t value) {
  ProbeFrame frame{};
  frame[0] = static_cast<std::byte>(type);
  std::memcpy(frame.data() + 8, &value, sizeof(value));
  return frame;
}

Result<ProbeCommand> read_probe_frame(const ProbeFrame& frame) {
  ProbeCommand command{static_cast<ProbeFrameType>(frame[0]), 0};
  std::memcpy(&command.value, frame.data() + 8, sizeof(command.value));
  const bool known = command.type == ProbeFrameType::ping || command.type == ProbeFrameType::data ||
                     command.type == ProbeFrameType::report;
  if (!known || probe_frame(command.type, command.value) != frame)
    return fail(ErrorCode::malformed, "no frame of a measurement");
  return command;
}

double arrival_rate(std::span<const Arrival> arrivals) {
  if (arrivals.empty()) return 0;
  const Arrival& last = arrivals.back();
  const auto half = std::ranges::find_if(
      arrivals, [&](const Arrival& arrival) { return arrival.bytes >= last.bytes - last.bytes / 2; });
  const Arrival& from = half->time < last.time ? *half : arrivals.front();
  if (from.time >= last.time) return 0;
  return static_cast<double>(last.bytes - from.bytes) / to_seconds(last.time - from.time);
}

Result<PathFigures> measure_path(const std::string& address, uint16_t port, const ProbeNonce& nonce,
                                 const std::atomic<bool>& cancelled) {
  const SystemClock clock;
  SHOAL_TRY(const SocketAddress to, SocketAddress::parse(address, port));
  SHOAL_TRY(FileDescriptor socket, connect_tcp(to, clock.now() + kConnectTime));
  Probe probe(std::move(socket), clock.now() + kMaxProbeTime, cancelled);
  PathFigures figures;
  SHOAL_TRY(figures.local_address, local_address(probe.socket()));
  SHOAL_TRY_VOID(probe.send(probe_hello(nonce)));
  SHOAL_TRY(const std::vector<double> times, ping(probe));
  figures.rtt_p50_us = quantile(times, 0.5);
  figures.rtt_p99_us = quantile(times, 0.99);
  SHOAL_TRY(figures.bytes_per_second, burst(probe, figures.rtt_p50_us / 1e6));
  if (!(figures.bytes_per_second > 0)) return fail(ErrorCode::malformed, "the node reported no rate");
  return figures;
}

}  // namespace shoal::serving
