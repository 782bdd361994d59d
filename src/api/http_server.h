// The HTTP/1.1 server: listens, parses, bounds and times out what clients send, and carries answers back. It
// knows nothing of dialects; a RequestHandler does. One event-loop thread; no call blocks.
//
// Bounds: connections, header bytes and time, body bytes and rate, bytes that a slow client leaves unread. A
// client that goes away while its request is being answered is noticed at once and told to
// Exchange::on_closed().
#pragma once

#include <boost/asio/io_context.hpp>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "api/http.h"
#include "base/limits.h"
#include "base/result.h"

namespace shoal::api {

struct HttpServerOptions {
  // "localhost" is 127.0.0.1 and, where it exists, ::1; else numeric.
  std::vector<std::string> addresses = {"localhost"};
  uint16_t port = 8000;  // of all addresses; 0: any free one
  size_t maximum_connections = limits::kMaxConnections;
  uint64_t maximum_body_bytes = limits::kMaxBodyBytes;
  uint32_t maximum_header_bytes = limits::kMaxHttpHeaderBytes;
  size_t maximum_unsent_bytes =
      4 * limits::kMiB;  // of a stream whose client reads slower than it is produced
  Duration header_timeout = milliseconds(limits::kHttpHeaderTimeoutMs);
  Duration idle_timeout = milliseconds(limits::kHttpIdleTimeoutMs);
  Duration body_timeout = seconds(60);   // for every 64 KiB of a body
  Duration write_timeout = seconds(60);  // without the client taking a byte
};

class HttpServer {
 public:
  // Binds and starts to accept. `handler` must outlive the server. Errors: conflict (port in use), io,
  // invalid_argument.
  static Result<std::unique_ptr<HttpServer>> start(boost::asio::io_context& io,
                                                   const HttpServerOptions& options, RequestHandler& handler);
  ~HttpServer();  // closes what is left; the handler is not called afterwards

  uint16_t port() const;
  bool loopback_only() const;

  // No new connections; idle ones are closed, requests in progress may end within `grace`, then they are cut.
  // `done` is called once, when no connection is left.
  void stop(Duration grace, std::function<void()> done);

 private:
  struct State;
  explicit HttpServer(std::shared_ptr<State> state) : state_(std::move(state)) {}
  std::shared_ptr<State> state_;
};

}  // namespace shoal::api
