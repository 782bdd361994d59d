#include "api/http_session.h"

#include <boost/asio/buffer.hpp>
#include <boost/asio/post.hpp>
#include <boost/beast/http/error.hpp>
#include <fmt/format.h>

#include "base/assert.h"
#include "base/system.h"

namespace shoal::api {
namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using boost::system::error_code;

constexpr size_t kReadBytes = 16 * limits::kKiB;
constexpr size_t kPipelinedBytes = 64 * limits::kKiB;  // kept while a request is being answered
constexpr size_t kBodyProgressBytes = 64 * limits::kKiB;
constexpr size_t kLingerBytes = 64 * limits::kMiB;  // read and dropped, so that a refused client reads why
constexpr Duration kLingerTimeout = seconds(2);

std::string new_request_id() {
  return fmt::format("req_{:016x}", random_u64());
}

std::string_view view(boost::beast::string_view text) {
  return {text.data(), text.size()};
}

}  // namespace

// The handler's end of one request. Dropping it unanswered answers 500.
class SessionExchange final : public Exchange {
 public:
  SessionExchange(std::shared_ptr<HttpSession> session, uint64_t serial)
      : session_(std::move(session)), serial_(serial) {}
  SessionExchange(const SessionExchange&) = delete;
  SessionExchange& operator=(const SessionExchange&) = delete;
  ~SessionExchange() override { session_->abandon(serial_); }

  void respond(Response response) override {
    if (session_->is_current(serial_)) session_->respond(std::move(response));
  }
  void start_stream(Response head) override {
    if (session_->is_current(serial_)) session_->start_stream(std::move(head));
  }
  void write(std::string_view chunk) override {
    if (session_->is_current(serial_)) session_->write_chunk(chunk);
  }
  void finish() override {
    if (session_->is_current(serial_)) session_->finish();
  }
  void on_closed(std::function<void()> handler) override {
    if (session_->is_current(serial_) && !session_->ended_) session_->on_client_gone_ = std::move(handler);
  }

 private:
  std::shared_ptr<HttpSession> session_;
  uint64_t serial_;
};

HttpSession::HttpSession(asio::ip::tcp::socket socket, RequestHandler& handler,
                         const HttpServerOptions& options, std::function<void(HttpSession*)> on_closed)
    : socket_(std::move(socket)),
      deadline_(socket_.get_executor()),
      write_deadline_(socket_.get_executor()),
      handler_(handler),
      options_(options),
      on_closed_(std::move(on_closed)) {}

void HttpSession::start() {
  error_code ignored;
  socket_.set_option(asio::ip::tcp::no_delay(true), ignored);
  wait_for_request();
}

void HttpSession::close_when_idle() {
  draining_ = true;
  if (phase_ == Phase::waiting) close();
}

void HttpSession::close() {
  if (phase_ == Phase::closed) return;
  const bool answering = phase_ == Phase::answering;
  phase_ = Phase::closed;
  error_code ignored;
  socket_.close(ignored);
  deadline_.cancel();
  write_deadline_.cancel();
  if (answering) record(ended_ ? status_ : 499);
  if (auto gone = std::exchange(on_client_gone_, nullptr); gone && !ended_) gone();
  if (auto closed = std::exchange(on_closed_, nullptr)) closed(this);
}

// ---- reading

void HttpSession::wait_for_request() {
  if (draining_) return close();
  phase_ = Phase::waiting;
  parser_.reset();
  if (buffer_.size() > 0) return on_bytes();
  expire_after(options_.idle_timeout);
  receive();
}

void HttpSession::receive() {
  if (receiving_ || phase_ == Phase::closed) return;
  receiving_ = true;
  read_block_.resize(kReadBytes);
  socket_.async_read_some(
      asio::buffer(read_block_), [self = shared_from_this()](const error_code& error, size_t bytes) {
        self->receiving_ = false;
        if (self->phase_ == Phase::closed) return;
        if (error) return self->close();
        self->buffer_.commit(
            asio::buffer_copy(self->buffer_.prepare(bytes), asio::buffer(self->read_block_, bytes)));
        self->on_bytes();
      });
}

void HttpSession::on_bytes() {
  switch (phase_) {
    case Phase::waiting:
      phase_ = Phase::reading_head;
      head_seen_ = false;
      parser_.emplace();
      parser_->header_limit(options_.maximum_header_bytes);
      parser_->body_limit(options_.maximum_body_bytes);
      expire_after(options_.header_timeout);
      return parse();
    case Phase::reading_head:
    case Phase::reading_body:
      return parse();
    case Phase::answering:
      if (buffer_.size() < kPipelinedBytes) receive();
      return;
    case Phase::lingering:
      lingered_bytes_ += buffer_.size();
      buffer_.consume(buffer_.size());
      return lingered_bytes_ > kLingerBytes ? close() : receive();
    case Phase::closed:
      return;
  }
}

void HttpSession::parse() {
  error_code error;
  while (true) {
    if (parser_->is_done()) return on_body_done();
    if (buffer_.size() == 0) return receive();
    const size_t used = parser_->put(buffer_.data(), error);
    buffer_.consume(used);
    if (error == http::error::need_more) return receive();
    if (error) return refuse_malformed(error);
    if (parser_->is_header_done() && !head_seen_) {
      head_seen_ = true;
      on_head();
      if (phase_ != Phase::reading_body) return;
      parser_->eager(true);
    }
    if (phase_ == Phase::reading_body &&
        parser_->get().body().size() >= body_bytes_at_deadline_ + kBodyProgressBytes) {
      body_bytes_at_deadline_ = parser_->get().body().size();
      expire_after(options_.body_timeout);
    }
  }
}

void HttpSession::on_head() {
  const auto& message = parser_->get();
  head_ = RequestHead{};
  head_.method = view(message.method_string());
  const std::string_view target = view(message.target());
  const size_t question = target.find('?');
  head_.path = target.substr(0, question);
  if (question != target.npos) head_.query = target.substr(question + 1);
  for (const auto& field : message) {
    head_.headers.push_back({std::string(view(field.name_string())), std::string(view(field.value()))});
  }
  head_.id = new_request_id();
  error_code ignored;
  head_.peer = socket_.remote_endpoint(ignored).address().to_string();
  http10_ = message.version() < 11;
  keep_alive_ = parser_->keep_alive();
  begin_answer();
  if (message.version() != 10 && message.version() != 11) {
    keep_alive_ = false;
    return respond(handler_.fault(head_, 505, "this server speaks HTTP/1.1"));
  }
  if (const std::string* expectation = head_.header("expect");
      expectation && !equals_ignoring_case(*expectation, "100-continue")) {
    keep_alive_ = false;
    return respond(handler_.fault(head_, 417, fmt::format("cannot meet the expectation '{}'", *expectation)));
  }
  if (auto refusal = handler_.refuse(head_)) {
    keep_alive_ = keep_alive_ && parser_->is_done();  // a body that nobody reads ends the connection
    return respond(std::move(*refusal));
  }
  if (head_.header("expect") && !http10_ && buffer_.size() == 0 && !parser_->is_done()) {
    append("HTTP/1.1 100 Continue\r\n\r\n");
  }
  phase_ = Phase::reading_body;
  body_bytes_at_deadline_ = 0;
  expire_after(options_.body_timeout);
}

void HttpSession::on_body_done() {
  Request request{head_, std::move(parser_->get().body())};
  request_bytes_ = request.body.size();
  phase_ = Phase::answering;
  deadline_.cancel();
  auto exchange = std::make_shared<SessionExchange>(shared_from_this(), serial_);
  receive();  // notices the client's leaving
  handler_.handle(std::move(request), std::move(exchange));
}

void HttpSession::refuse_malformed(const error_code& error) {
  if (!head_seen_) {
    head_ = RequestHead{};
    head_.id = new_request_id();
    begin_answer();
  }
  phase_ = Phase::answering;
  keep_alive_ = false;
  if (error == http::error::body_limit || error == http::error::buffer_overflow) {
    return respond(handler_.fault(
        head_, 413, fmt::format("the request's body is larger than {} bytes", options_.maximum_body_bytes)));
  }
  if (error == http::error::header_limit) {
    return respond(handler_.fault(
        head_, 431,
        fmt::format("the request's headers are larger than {} bytes", options_.maximum_header_bytes)));
  }
  if (error == http::error::bad_version)
    return respond(handler_.fault(head_, 505, "this server speaks HTTP/1.1"));
  respond(handler_.fault(head_, 400, fmt::format("malformed HTTP request: {}", error.message())));
}

void HttpSession::expire_after(Duration timeout) {
  deadline_.expires_after(timeout);
  deadline_.async_wait([self = shared_from_this()](const error_code& error) {
    if (!error && self->deadline_.expiry() <= asio::steady_timer::clock_type::now()) self->on_deadline();
  });
}

void HttpSession::on_deadline() {
  if (phase_ != Phase::reading_head && phase_ != Phase::reading_body) {
    if (phase_ != Phase::answering) close();
    return;
  }
  if (!head_seen_) {
    head_ = RequestHead{};
    head_.id = new_request_id();
    begin_answer();
  }
  phase_ = Phase::answering;
  keep_alive_ = false;
  respond(handler_.fault(head_, 408, "the request did not arrive in time"));
}

// ---- answering

void HttpSession::begin_answer() {
  phase_ = Phase::answering;
  ++serial_;
  started_ = std::chrono::steady_clock::now();
  request_bytes_ = response_bytes_ = 0;
  answered_ = ended_ = chunked_ = false;
  status_ = 0;
}

void HttpSession::respond(Response response) {
  if (answered_) return;
  answered_ = ended_ = true;
  on_client_gone_ = nullptr;
  status_ = response.status;
  keep_alive_ = keep_alive_ && !draining_;
  append(serialize_head(response, head_.id,
                        {.keep_alive = keep_alive_, .content_length = response.body.size()}));
  if (head_.method != "HEAD" && response.status != 204) {
    response_bytes_ += response.body.size();
    append(response.body);
  }
}

void HttpSession::start_stream(Response head) {
  if (answered_) return;
  answered_ = true;
  status_ = head.status;
  chunked_ = !http10_;
  keep_alive_ = keep_alive_ && chunked_ && !draining_;
  append(
      serialize_head(head, head_.id, {.keep_alive = keep_alive_, .chunked = chunked_, .content_length = {}}));
}

void HttpSession::write_chunk(std::string_view chunk) {
  if (!answered_ || ended_ || chunk.empty() || head_.method == "HEAD") return;
  response_bytes_ += chunk.size();
  if (chunked_) {
    append(fmt::format("{:x}\r\n", chunk.size()));
    append(chunk);
    append("\r\n");
  } else {
    append(chunk);
  }
  if (outbox_.size() + in_flight_.size() - in_flight_sent_ > options_.maximum_unsent_bytes) {
    // Posted: the handler that writes must not find itself told of the end inside its own call.
    ended_ = true;
    asio::post(socket_.get_executor(), [self = shared_from_this()] {
      self->ended_ = false;
      self->close();
    });
  }
}

void HttpSession::finish() {
  if (!answered_ || ended_) return;
  ended_ = true;
  on_client_gone_ = nullptr;
  if (chunked_ && head_.method != "HEAD") append("0\r\n\r\n");
  if (!writing_) after_answer();
}

void HttpSession::abandon(uint64_t serial) {
  if (!is_current(serial) || ended_) return;
  if (!answered_) return respond(handler_.fault(head_, 500, "the request was dropped without an answer"));
  close();
}

void HttpSession::append(std::string_view bytes) {
  outbox_ += bytes;
  if (!writing_) {
    writing_ = true;
    // Posted, so that what one event appends leaves in one write and no completion runs inside the caller.
    asio::post(socket_.get_executor(), [self = shared_from_this()] { self->flush(); });
  }
}

void HttpSession::flush() {
  if (phase_ == Phase::closed) return;
  if (in_flight_sent_ == in_flight_.size()) {
    in_flight_.clear();
    in_flight_sent_ = 0;
    std::swap(in_flight_, outbox_);
    if (in_flight_.empty()) {
      writing_ = false;
      write_deadline_.cancel();
      if (phase_ == Phase::answering && ended_) after_answer();
      return;
    }
  }
  write_deadline_.expires_after(options_.write_timeout);
  write_deadline_.async_wait([self = shared_from_this()](const error_code& error) {
    if (!error && self->write_deadline_.expiry() <= asio::steady_timer::clock_type::now()) self->close();
  });
  socket_.async_write_some(
      asio::buffer(in_flight_.data() + in_flight_sent_, in_flight_.size() - in_flight_sent_),
      [self = shared_from_this()](const error_code& error, size_t bytes) {
        if (self->phase_ == Phase::closed) return;
        if (error) return self->close();
        self->in_flight_sent_ += bytes;
        self->flush();
      });
}

void HttpSession::after_answer() {
  record(status_);
  if (!keep_alive_) return linger();
  wait_for_request();
}

void HttpSession::linger() {
  phase_ = Phase::lingering;
  error_code ignored;
  socket_.shutdown(asio::ip::tcp::socket::shutdown_send, ignored);
  lingered_bytes_ = 0;
  buffer_.consume(buffer_.size());
  expire_after(kLingerTimeout);
  receive();
}

void HttpSession::record(int status) {
  handler_.finished(
      {head_, status, request_bytes_, response_bytes_, std::chrono::steady_clock::now() - started_});
}

}  // namespace shoal::api
