#include <algorithm>
#include <cerrno>
#include <fmt/format.h>
#include <optional>
#include <poll.h>
#include <thread>

#include "base/limits.h"
#include "base/log.h"
#include "base/system.h"
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

Result<FileDescriptor> call(const SocketAddress& address, const Hello& hello, const std::string& peer,
                            TimePoint deadline) {
  SHOAL_TRY(FileDescriptor socket, connect_tcp(address, std::min(deadline, now() + kConnectTimeout)));
  SHOAL_TRY_VOID(introduce(socket, hello, peer, std::min(deadline, now() + kHandshakeTimeout)));
  return socket;
}

Result<std::unique_ptr<Link>> finish_link(FileDescriptor data, FileDescriptor control, std::string peer,
                                          const LinkOptions& options) {
  auto stream = std::make_unique<TcpStream>(std::move(data), std::move(peer), options.window_units,
                                            BufferPool::create(kPoolBytes));
  return make_stream_link(std::move(stream), std::move(control), options);
}

Result<std::unique_ptr<Link>> try_address(const SocketAddress& address, const Credentials& credentials,
                                          TimePoint deadline, const LinkOptions& options) {
  std::string peer = name_of(credentials.peer_rank, address.text());
  Hello hello{Purpose::data, random_u64(), credentials};
  SHOAL_TRY(FileDescriptor data, call(address, hello, peer, deadline));
  hello.purpose = Purpose::control;
  SHOAL_TRY(FileDescriptor control, call(address, hello, peer, deadline));
  return finish_link(std::move(data), std::move(control), peer, options);
}

// Callers at a listener: strangers until their hello proves them, then halves of a Link until both are there.
class Reception {
 public:
  Reception(const std::vector<FileDescriptor>& listeners, const Credentials& credentials)
      : listeners_(listeners), credentials_(credentials) {}

  struct Pair {
    FileDescriptor data;
    FileDescriptor control;
  };
  // Serves the callers until two of them make a Link.
  Result<Pair> wait(TimePoint deadline) {
    while (now() < deadline) {
      std::erase_if(callers_, [](const Caller& caller) { return now() >= caller.deadline; });
      sleep(deadline);
      for (const FileDescriptor& listener : listeners_) admit(listener);
      std::erase_if(callers_, [this](Caller& caller) { return !caller.proven && !listen_to(caller); });
      if (auto pair = match()) return std::move(*pair);
    }
    return fail(ErrorCode::timeout, fmt::format("rank {} did not connect in time", credentials_.peer_rank));
  }

 private:
  struct Caller {
    FileDescriptor socket;
    TimePoint deadline;
    HelloReceiver receiver;
    std::optional<Hello> proven;
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
      callers_.push_back({std::move(*socket), now() + kHandshakeTimeout, {}, {}});
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
    return answer(caller.socket, {caller.proven->purpose, caller.proven->nonce, credentials_}).has_value();
  }

  std::optional<Pair> match() {
    for (Caller& data : callers_) {
      if (!data.proven || data.proven->purpose != Purpose::data) continue;
      for (Caller& control : callers_) {
        if (!control.proven || control.proven->purpose != Purpose::control) continue;
        if (control.proven->nonce == data.proven->nonce) {
          return Pair{std::move(data.socket), std::move(control.socket)};
        }
      }
    }
    return std::nullopt;
  }

  const std::vector<FileDescriptor>& listeners_;
  const Credentials& credentials_;
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
  SHOAL_TRY(Reception::Pair pair, Reception(sockets_, credentials).wait(deadline));
  return finish_link(std::move(pair.data), std::move(pair.control),
                     fmt::format("rank {}", credentials.peer_rank), options);
}

}  // namespace shoal::link
