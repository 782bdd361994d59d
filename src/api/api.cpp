#include "api/api.h"

#include <fmt/format.h>

#include "api/admin/routes.h"
#include "api/openai/errors.h"
#include "api/openai/routes.h"
#include "base/log.h"

namespace shoal::api {
namespace {

constexpr size_t kLoggedPathBytes = 200;

// A path as a log line and an error message may show it: short, printable, no quotes to break out of.
std::string printable(std::string_view path) {
  std::string out;
  for (char c : path.substr(0, kLoggedPathBytes)) out += c > ' ' && c < 127 && c != '"' ? c : '?';
  return out;
}

// A client may make up methods; metrics must not grow with them.
std::string_view method_label(std::string_view method) {
  for (std::string_view known : {"GET", "HEAD", "POST", "DELETE", "OPTIONS", "PUT", "PATCH"}) {
    if (method == known) return known;
  }
  return "other";
}

// Adds the CORS headers of one request to whatever answers it.
class CorsExchange final : public Exchange {
 public:
  CorsExchange(std::shared_ptr<Exchange> inner, std::vector<Header> headers)
      : inner_(std::move(inner)), headers_(std::move(headers)) {}

  void respond(Response response) override { inner_->respond(with_headers(std::move(response))); }
  void start_stream(Response head) override { inner_->start_stream(with_headers(std::move(head))); }
  void write(std::string_view chunk) override { inner_->write(chunk); }
  void finish() override { inner_->finish(); }
  void on_closed(std::function<void()> handler) override { inner_->on_closed(std::move(handler)); }

 private:
  Response with_headers(Response response) const {
    response.headers.insert(response.headers.end(), headers_.begin(), headers_.end());
    return response;
  }

  std::shared_ptr<Exchange> inner_;
  std::vector<Header> headers_;
};

}  // namespace

Api::Api(serving::Service& service, AccessRules rules) : rules_(std::move(rules)) {
  openai::add_routes(router_, service);
  admin::add_routes(router_, service, [this] { return metrics_.text(); });
}

std::optional<Response> Api::refuse(const RequestHead& head) {
  auto refused = check_access(rules_, head);
  if (!refused) return {};
  log_info("http", "refused id={} peer={} status={} reason={}", head.id, head.peer, refused->status,
           refused->code);
  return openai::error_response(*refused);
}

void Api::handle(Request request, std::shared_ptr<Exchange> exchange) {
  if (auto cors = cors_headers(rules_, request.head); !cors.empty()) {
    exchange = std::make_shared<CorsExchange>(std::move(exchange), std::move(cors));
  }
  RouteMatch match = router_.match(request.head.method, request.head.path);
  if (match.route)
    return match.route->handler({std::move(request), std::move(match.argument)}, std::move(exchange));
  if (match.allow.empty()) {
    return exchange->respond(openai::error_response(
        {404,
         fmt::format("Invalid URL ({} {})", request.head.method, printable(request.head.path)),
         {},
         "unknown_url"}));
  }
  if (request.head.method == "OPTIONS") {
    return exchange->respond(
        {.status = 204, .content_type = {}, .body = {}, .headers = {{"allow", match.allow}}});
  }
  Response response =
      openai::error_response({405,
                              fmt::format("Not allowed to {} on {}; it takes {}", request.head.method,
                                          printable(request.head.path), match.allow),
                              {},
                              "method_not_supported"});
  response.headers.push_back({"allow", match.allow});
  exchange->respond(std::move(response));
}

Response Api::fault(const RequestHead&, int status, std::string_view message) {
  return openai::error_response({status, std::string(message), {}, status == 413 ? "request_too_large" : ""});
}

void Api::finished(const AccessRecord& record) {
  metrics_.request_finished(router_.pattern_of(record.head.path), method_label(record.head.method),
                            record.status, record.duration, record.response_bytes);
  log_info("http", "id={} peer={} method={} path=\"{}\" status={} in={} out={} ms={:.1f}", record.head.id,
           record.head.peer, record.head.method, printable(record.head.path), record.status,
           record.request_bytes, record.response_bytes, to_milliseconds(record.duration));
}

}  // namespace shoal::api
