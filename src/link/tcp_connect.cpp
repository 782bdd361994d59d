#include <algorithm>
#include <cerrno>
#include <fmt/format.h>
#include <optional>
#include <poll.h>
#include <thread>

#include "base/limits.h"
#include "base/log.h"
#include "base/system.h"
#include "link/shm_stream.h"
#include "link/stream_link.h"
#include "link/tcp_handshake.h"
#include "link/tcp_link.h"
#include "link/tcp_stream.h"

namespace shoal::link {
namespace {

constexpr uint64_t kPoolBytes = 2 * limits::kGiB;
constexpr Duration kFirstPause = milliseconds(50);  // doubled after every round that fails
constexpr Duration kLongestPause = milliseconds(800);
constexpr Duration kConnectTimeout = seconds(2);
constexpr size_t kMaxCallers = 32;  // in the middle of a handshake; the oldest is dropped for one more

TimePoint now() {
  return std::chrono::steady_clock::now();
}

std::string name_of(uint32_t rank, const std::string& address) {
  return fmt::format("rank {} at {}", rank, address);
}

struct Answered {
  FileDescriptor socket;
  Hello answer;
};

Result<Answered> call(const SocketAddress& address, const Hello& hello, const std::string& peer,
                      TimePoint deadline) {
  auto connected = connect_tcp(address, std::min(deadline, now() + kConnectTimeout));
  if (!connected) {
    return fail(connected.error().code,
                fmt::format("rank {}: {}", hello.credentials.peer_rank, connected.error().message));
  }
  FileDescriptor socket = *std::move(connected);
  SHOAL_TRY(Hello answer, introduce(socket, hello, peer, std::min(deadline, now() + kHandshakeTimeout)));
  return Answered{std::move(socket), std::move(answer)};
}

// What two ends have of each other when they met.
struct Meeting {
  FileDescriptor data;
  FileDescriptor control;
  SharedSegment segment;  // without bytes: over TCP
};

Result<std::unique_ptr<Link>> finish_link(Meeting meeting, ShmEnd end, std::string peer,
                                          const LinkOptions& options) {
  auto pool = BufferPool::create(kPoolBytes);
  std::unique_ptr<FrameStream> stream;
  if (meeting.segment.bytes().empty()) {
    stream = std::make_unique<TcpStream>(std::move(meeting.data), std::move(peer), options.window_units,
                                         std::move(pool));
  } else {
    stream = std::make_unique<ShmStream>(std::move(meeting.segment), end, std::move(meeting.data),
                                         std::move(peer), options.window_units, std::move(pool));
  }
  return make_stream_link(std::move(stream), std::move(meeting.control), options);
}

uint64_t domain(const LinkOptions& options) {
  return options.shared_memory ? sharing_domain() : 0;
}

Result<std::unique_ptr<Link>> try_address(const SocketAddress& address, const Credentials& credentials,
                                          TimePoint deadline, const LinkOptions& options) {
  std::string peer = name_of(credentials.peer_rank, address.text());
  Hello hello{Purpose::data, random_u64(), credentials, domain(options)};
  Meeting meeting;
  SHOAL_TRY(Answered data, call(address, hello, peer, deadline));
  meeting.data = std::move(data.socket);
  if (hello.sharing_domain != 0 && data.answer.sharing_domain == hello.sharing_domain) {
    auto segment = SharedSegment::open(data.answer.segment, ShmStream::kSegmentBytes);
    if (segment) {
      meeting.segment = *std::move(segment);
      hello.segment = data.answer.segment;
    }
  }
  hello.purpose = Purpose::control;
  SHOAL_TRY(Answered control, call(address, hello, peer, deadline));
  meeting.control = std::move(control.socket);
  return finish_link(std::move(meeting), ShmEnd::opener, peer, options);
}

// Callers at a listener: strangers until their hello proves them, then halves of a Link until both are there.
class Reception {
 public:
  Reception(const std::vector<FileDescriptor>& listeners, const Credentials& credentials,
            uint64_t sharing_domain)
      : listeners_(listeners), credentials_(credentials), sharing_domain_(sharing_domain) {}

  // Serves the callers until two of them make a Link.
  Result<Meeting> wait(TimePoint deadline) {
    while (now() < deadline) {
      std::erase_if(callers_, [](const Caller& caller) { return now() >= caller.deadline; });
      sleep(deadline);
      for (const FileDescriptor& listener : listeners_) admit(listener);
      std::erase_if(callers_, [this](Caller& caller) { return !caller.proven && !listen_to(caller); });
      if (auto meeting = match()) return std::move(*meeting);
    }
    return fail(ErrorCode::timeout, fmt::format("rank {} did not connect in time", credentials_.peer_rank));
  }

 private:
  struct Caller {
    FileDescriptor socket;
    TimePoint deadline;
    HelloReceiver receiver;
    std::optional<Hello> proven;
    SharedSegment segment = {};  // offered to it
  };

  void sleep(TimePoint deadline) {
    std::vector<pollfd> watched;
    for (const FileDescriptor& listener : listeners_) watched.push_back({listener.get(), POLLIN, 0});
    for (const Caller& caller : callers_) {
      deadline = std::min(deadline, caller.deadline);
      if (!caller.proven) watched.push_back({caller.socket.get(), POLLIN, 0});
    }
    ::poll(watched.data(), static_cast<nfds_t>(watched.size()), poll_milliseconds(deadline));
  }

  void admit(const FileDescriptor& listener) {
    while (true) {
      auto socket = accept_tcp(listener);
      if (!socket || !socket->valid()) return;  // out of descriptors counts as nobody there
      if (callers_.size() >= kMaxCallers) callers_.erase(callers_.begin());
      callers_.push_back({std::move(*socket), now() + kHandshakeTimeout, {}, {}, {}});
    }
  }

  // False: not the peer; nothing is said to it.
  bool listen_to(Caller& caller) {
    auto hello = caller.receiver.receive(caller.socket);
    if (!hello) return false;
    if (!*hello) return true;
    if (!proves(credentials_, **hello)) {
      if (!std::exchange(warned_, true)) {
        log_warning("link", "dropped a caller that is not rank {} of this epoch", credentials_.peer_rank);
      }
      return false;
    }
    caller.proven = std::move(**hello);
    Hello reply{caller.proven->purpose, caller.proven->nonce, credentials_, sharing_domain_};
    if (reply.purpose == Purpose::data && sharing_domain_ != 0 &&
        caller.proven->sharing_domain == sharing_domain_) {
      if (auto segment = SharedSegment::create(ShmStream::kSegmentBytes))
        caller.segment = *std::move(segment);
      reply.segment = caller.segment.name();
    }
    return answer(caller.socket, reply).has_value();
  }

  std::optional<Meeting> match() {
    for (Caller& data : callers_) {
      if (!data.proven || data.proven->purpose != Purpose::data) continue;
      for (Caller& control : callers_) {
        if (!control.proven || control.proven->purpose != Purpose::control) continue;
        if (control.proven->nonce == data.proven->nonce) return meet(data, control);
      }
    }
    return std::nullopt;
  }

  Meeting meet(Caller& data, Caller& control) {
    Meeting meeting{std::move(data.socket), std::move(control.socket), {}};
    if (!control.proven->segment.empty() && control.proven->segment == data.segment.name()) {
      meeting.segment = std::move(data.segment);
      meeting.segment.hide();
    }
    return meeting;
  }

  const std::vector<FileDescriptor>& listeners_;
  const Credentials& credentials_;
  const uint64_t sharing_domain_;
  std::vector<Caller> callers_;
  bool warned_ = false;
};

}  // namespace

Result<std::unique_ptr<Link>> connect_tcp_link(const std::vector<SocketAddress>& addresses,
                                               const Credentials& credentials, TimePoint deadline,
                                               const LinkOptions& options) {
  Error last{ErrorCode::invalid_argument,
             fmt::format("no address of rank {} was given", credentials.peer_rank), ""};
  for (Duration pause = kFirstPause; !addresses.empty(); pause = std::min(2 * pause, kLongestPause)) {
    for (const SocketAddress& address : addresses) {
      auto link = try_address(address, credentials, deadline, options);
      if (link) return link;
      // An attempt that the deadline cut short tells less than the one before it.
      bool cut_short = now() >= deadline && link.error().code == ErrorCode::timeout;
      if (!cut_short || last.code == ErrorCode::invalid_argument) last = std::move(link).error();
      if (now() >= deadline) return std::unexpected(std::move(last));
    }
    std::this_thread::sleep_until(std::min(deadline, now() + pause));
  }
  return std::unexpected(std::move(last));
}

Result<TcpLinkListener> TcpLinkListener::open(const std::vector<std::string>& addresses) {
  constexpr int kAttempts = 20;  // the port of the first address may be taken on another
  constexpr int kBacklog = 16;
  Error last{ErrorCode::invalid_argument, "no address to listen on was given", ""};
  for (int attempt = 0; attempt < kAttempts && !addresses.empty(); ++attempt) {
    std::vector<FileDescriptor> sockets;
    uint16_t port = 0;
    bool complete = true;
    for (const std::string& text : addresses) {
      SHOAL_TRY(SocketAddress address, SocketAddress::parse(text, port));
      auto socket = listen_tcp(address, kBacklog);
      if (!socket) {
        last = std::move(socket).error();
        if (last.code != ErrorCode::conflict) return std::unexpected(std::move(last));
        complete = false;
        break;
      }
      SHOAL_TRY(port, local_port(*socket));
      sockets.push_back(std::move(*socket));
    }
    if (complete) return TcpLinkListener(std::move(sockets), port);
  }
  return std::unexpected(std::move(last));
}

Result<std::unique_ptr<Link>> TcpLinkListener::accept(const Credentials& credentials, TimePoint deadline,
                                                      const LinkOptions& options) {
  SHOAL_TRY(Meeting meeting, Reception(sockets_, credentials, domain(options)).wait(deadline));
  return finish_link(std::move(meeting), ShmEnd::creator, fmt::format("rank {}", credentials.peer_rank),
                     options);
}

}  // namespace shoal::link
