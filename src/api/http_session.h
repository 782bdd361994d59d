// One client connection of the HTTP server: reads requests one after the other, hands each to the handler,
// writes the answer. Only http_server.cpp and http_session.cpp include this (it brings Beast in).
//
// There is always at most one read and one write in flight. The read goes on while a request is being
// answered: that is how a client's leaving is noticed, and what it pipelines is kept for later.
#pragma once

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "api/http_server.h"

namespace shoal::api {

class HttpSession final : public std::enable_shared_from_this<HttpSession> {
 public:
  HttpSession(boost::asio::ip::tcp::socket socket, RequestHandler& handler, const HttpServerOptions& options,
              std::function<void(HttpSession*)> on_closed);

  void start();
  void close_when_idle();
  void close();  // at once; a request in progress counts as abandoned by its client

 private:
  friend class SessionExchange;
  enum class Phase { waiting, reading_head, reading_body, answering, lingering, closed };

  // Reading.
  void wait_for_request();
  void receive();
  void on_bytes();
  void parse();
  void on_head();
  void on_body_done();
  void refuse_malformed(const boost::system::error_code& error);
  void expire_after(Duration timeout);
  void on_deadline();

  // Answering; called by the exchange of request `serial`, ignored when that is over.
  bool is_current(uint64_t serial) const { return phase_ == Phase::answering && serial == serial_; }
  void begin_answer();
  void respond(Response response);
  void start_stream(Response head);
  void write_chunk(std::string_view chunk);
  void finish();
  void abandon(uint64_t serial);  // the handler dropped the exchange without an answer
  void append(std::string_view bytes);
  void flush();
  void after_answer();
  void linger();
  void record(int status);

  boost::asio::ip::tcp::socket socket_;
  boost::asio::steady_timer deadline_;
  boost::asio::steady_timer write_deadline_;
  RequestHandler& handler_;
  const HttpServerOptions options_;
  std::function<void(HttpSession*)> on_closed_;

  Phase phase_ = Phase::waiting;
  bool receiving_ = false;
  bool keep_alive_ = true;        // of the current request
  bool draining_ = false;         // the server stops: close after this answer
  std::vector<char> read_block_;  // where the read in flight puts its bytes; buffer_ may change meanwhile
  boost::beast::flat_buffer buffer_;
  std::optional<boost::beast::http::request_parser<boost::beast::http::string_body>> parser_;
  bool head_seen_ = false;
  size_t body_bytes_at_deadline_ = 0;

  uint64_t serial_ = 0;  // of the current request
  RequestHead head_;
  size_t request_bytes_ = 0;
  TimePoint started_{};
  bool http10_ = false;
  bool answered_ = false;  // a head was sent
  bool ended_ = false;     // the answer is complete in the outbox
  bool chunked_ = false;
  int status_ = 0;
  size_t response_bytes_ = 0;
  std::function<void()> on_client_gone_;

  std::string outbox_;  // waits for the write in flight
  std::string in_flight_;
  size_t in_flight_sent_ = 0;
  bool writing_ = false;
  size_t lingered_bytes_ = 0;
};

}  // namespace shoal::api
