#include "api/http_server.h"

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ip/v6_only.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <fmt/format.h>
#include <map>
#include <vector>

#include "api/http_session.h"
#include "base/log.h"

namespace shoal::api {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

constexpr Duration kAcceptRetryDelay = milliseconds(100);

Result<tcp::acceptor> listen(asio::io_context& io, const std::string& numeric, uint16_t port) {
  error_code error;
  const auto address = asio::ip::make_address(numeric, error);
  if (error) {
    return fail(ErrorCode::invalid_argument, fmt::format("'{}' is not an IP address", numeric),
                "give a numeric address such as 127.0.0.1, 0.0.0.0 or ::");
  }
  tcp::acceptor acceptor(io);
  const tcp::endpoint endpoint(address, port);
  acceptor.open(endpoint.protocol(), error);
  if (!error) acceptor.set_option(asio::socket_base::reuse_address(true), error);
  if (!error && address.is_v6()) acceptor.set_option(asio::ip::v6_only(!address.is_unspecified()), error);
  if (!error) acceptor.bind(endpoint, error);
  if (!error) acceptor.listen(asio::socket_base::max_listen_connections, error);
  if (!error) return acceptor;
  if (error == asio::error::address_in_use) {
    return fail(
        ErrorCode::conflict, fmt::format("port {} on {} is in use", port, address.to_string()),
        fmt::format("stop the program that listens there, or choose another with --port {}", port + 1));
  }
  if (error == asio::error::access_denied) {
    return fail(ErrorCode::io, fmt::format("may not listen on port {}", port),
                "ports below 1024 need privileges");
  }
  return fail(ErrorCode::io,
              fmt::format("cannot listen on {} port {}: {}", address.to_string(), port, error.message()));
}

}  // namespace

struct HttpServer::State : std::enable_shared_from_this<HttpServer::State> {
  State(asio::io_context& io_context, const HttpServerOptions& server_options,
        RequestHandler& request_handler)
      : io(io_context), options(server_options), handler(&request_handler), grace_timer(io_context) {}

  void accept(size_t index);
  void admit(tcp::socket socket);
  void forget(HttpSession* session);
  void stop(Duration grace, std::function<void()> done);
  void close_all();

  asio::io_context& io;
  const HttpServerOptions options;
  RequestHandler* handler;
  std::vector<tcp::acceptor> acceptors;
  std::vector<asio::steady_timer>
      retry_timers;  // one of each acceptor: setting a timer cancels its last wait
  std::map<HttpSession*, std::weak_ptr<HttpSession>> sessions;
  asio::steady_timer grace_timer;
  std::function<void()> on_stopped;
  bool stopping = false;
};

void HttpServer::State::accept(size_t index) {
  acceptors[index].async_accept(
      [self = shared_from_this(), index](const error_code& error, tcp::socket socket) {
        if (self->stopping) return;
        if (!error) {
          self->admit(std::move(socket));
          return self->accept(index);
        }
        // Out of descriptors or the like: others may close theirs soon.
        log_warning("http", "cannot accept a connection: {}", error.message());
        self->retry_timers[index].expires_after(kAcceptRetryDelay);
        self->retry_timers[index].async_wait([self, index](const error_code& cancelled) {
          if (!cancelled && !self->stopping) self->accept(index);
        });
      });
}

void HttpServer::State::admit(tcp::socket socket) {
  if (sessions.size() >= options.maximum_connections) {
    Response response =
        handler->fault({}, 503, fmt::format("all {} connections are taken", options.maximum_connections));
    const std::string bytes =
        serialize_head(response, {}, {.keep_alive = false, .content_length = response.body.size()}) +
        response.body;
    error_code ignored;
    socket.non_blocking(true, ignored);
    socket.write_some(asio::buffer(bytes), ignored);
    return;
  }
  auto session = std::make_shared<HttpSession>(std::move(socket), *handler, options,
                                               [self = weak_from_this()](HttpSession* closed) {
                                                 if (auto state = self.lock()) state->forget(closed);
                                               });
  sessions.emplace(session.get(), session);
  handler->connections_changed(sessions.size());
  session->start();
}

void HttpServer::State::forget(HttpSession* session) {
  sessions.erase(session);
  handler->connections_changed(sessions.size());
  if (!stopping || !sessions.empty()) return;
  grace_timer.cancel();
  if (auto done = std::exchange(on_stopped, nullptr)) asio::post(io, std::move(done));
}

void HttpServer::State::stop(Duration grace, std::function<void()> done) {
  stopping = true;
  error_code ignored;
  for (auto& acceptor : acceptors) acceptor.close(ignored);
  for (auto& timer : retry_timers) timer.cancel();
  if (sessions.empty()) {
    if (done) asio::post(io, std::move(done));
    return;
  }
  on_stopped = std::move(done);
  for (const auto& [raw, weak] : std::map(sessions)) {
    if (auto session = weak.lock()) session->close_when_idle();
  }
  grace_timer.expires_after(grace);
  grace_timer.async_wait([self = shared_from_this()](const error_code& cancelled) {
    if (!cancelled) self->close_all();
  });
}

void HttpServer::State::close_all() {
  for (const auto& [raw, weak] : std::map(sessions)) {
    if (auto session = weak.lock()) session->close();
  }
}

Result<std::unique_ptr<HttpServer>> HttpServer::start(asio::io_context& io, const HttpServerOptions& options,
                                                      RequestHandler& handler) {
  auto state = std::make_shared<State>(io, options, handler);
  uint16_t port = options.port;
  for (const std::string& address : options.addresses) {
    SHOAL_TRY(auto acceptor, listen(io, address == "localhost" ? "127.0.0.1" : address, port));
    error_code ignored;
    port = acceptor.local_endpoint(ignored).port();
    state->acceptors.push_back(std::move(acceptor));
    if (address != "localhost") continue;
    if (auto second = listen(io, "::1", port)) {
      state->acceptors.push_back(std::move(*second));
    } else if (second.error().code == ErrorCode::conflict && options.port != 0) {
      return std::unexpected(std::move(second).error());
    }
  }
  for (size_t i = 0; i < state->acceptors.size(); ++i) state->retry_timers.emplace_back(io);
  for (size_t i = 0; i < state->acceptors.size(); ++i) state->accept(i);
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(state)));
}

HttpServer::~HttpServer() {
  state_->on_stopped = nullptr;
  state_->stop(Duration::zero(), nullptr);
  state_->grace_timer.cancel();
  state_->close_all();
}

uint16_t HttpServer::port() const {
  error_code ignored;
  return state_->acceptors.front().local_endpoint(ignored).port();
}

bool HttpServer::loopback_only() const {
  error_code ignored;
  for (const auto& acceptor : state_->acceptors) {
    if (!acceptor.local_endpoint(ignored).address().is_loopback()) return false;
  }
  return true;
}

void HttpServer::stop(Duration grace, std::function<void()> done) {
  state_->stop(grace, std::move(done));
}

}  // namespace shoal::api
