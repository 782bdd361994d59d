// HTTP as the dialects see it: plain requests and responses, no sockets and no Beast. An Exchange is one
// request waiting for its answer: either one whole Response, or a stream of chunks. Everything happens on the
// event-loop thread. http_server.h carries these over TCP; tests carry them by hand.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"

namespace shoal::api {

struct Header {
  std::string name;
  std::string value;
};

struct RequestHead {
  std::string method;
  std::string path;             // as sent, without the query; "/v1/models/a%2Fb"
  std::string query;            // without '?'
  std::vector<Header> headers;  // in the order sent
  std::string id;               // ours, sent back as x-request-id
  std::string peer;             // address of the client

  // The first value of a header, or nullptr. Names compare without case.
  const std::string* header(std::string_view name) const;
};

struct Request {
  RequestHead head;
  std::string body;
};

struct Response {
  int status = 200;
  std::string content_type = "application/json";
  std::string body;
  std::vector<Header> headers;  // beside content-type, content-length, x-request-id, connection
};

class Exchange {
 public:
  virtual ~Exchange() = default;
  // Answers at once; nothing may follow.
  virtual void respond(Response response) = 0;
  // Answers in parts: `head` (its body is ignored), then any number of write(), then finish(). What the
  // client has not taken yet is kept up to a limit; beyond it the connection is closed, which on_closed()
  // tells.
  virtual void start_stream(Response head) = 0;
  virtual void write(std::string_view chunk) = 0;
  virtual void finish() = 0;
  // Called once when the client goes away before the answer ended; never after that. All calls above then do
  // nothing.
  virtual void on_closed(std::function<void()> handler) = 0;
};

// One answered (or abandoned) request, for the log and the metrics. Never holds prompts, answers or queries.
struct AccessRecord {
  const RequestHead& head;
  int status;             // 499 when the client went away first
  size_t request_bytes;   // of the body
  size_t response_bytes;  // of the body
  Duration duration;
};

// What a server asks of the application above it.
class RequestHandler {
 public:
  virtual ~RequestHandler() = default;
  // The head is here, the body is not: an answer refuses the request without reading on.
  virtual std::optional<Response> refuse(const RequestHead& head) = 0;
  virtual void handle(Request request, std::shared_ptr<Exchange> exchange) = 0;
  // The words for what the server itself has to refuse (malformed, too large, too slow); `head` may be empty.
  virtual Response fault(const RequestHead& head, int status, std::string_view message) = 0;
  virtual void finished(const AccessRecord& record) = 0;
  virtual void connections_changed(size_t open) = 0;
};

std::string_view reason_phrase(int status);
bool equals_ignoring_case(std::string_view a, std::string_view b);
// "%2F" -> "/"; nullopt for broken escapes and for NUL.
std::optional<std::string> percent_decode(std::string_view text);

// The status line and headers of an answer. `body_bytes` absent: chunked.
struct HeadOptions {
  bool keep_alive = true;
  bool chunked = false;
  std::optional<size_t> content_length;
};
std::string serialize_head(const Response& response, std::string_view request_id, const HeadOptions& options);

}  // namespace shoal::api
