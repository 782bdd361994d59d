#include "cli/http_client.h"

#include <boost/asio/connect.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/error.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/string_body.hpp>
#include <fmt/format.h>
#include <limits>
#include <poll.h>

#include "base/limits.h"

namespace shoal::cli {
namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using asio::ip::tcp;
using boost::system::error_code;

constexpr Duration kConnectTimeout = seconds(5);
constexpr int kStopQuestionMs = 100;

// A connected socket, or nothing when nobody listens (or answers in time) at the target.
bool connect(asio::io_context& io, tcp::socket& socket, const NodeUrl& target) {
  error_code error;
  tcp::resolver resolver(io);
  const auto endpoints = resolver.resolve(target.host, target.port, error);
  if (error) return false;
  bool connected = false;
  asio::async_connect(socket, endpoints,
                      [&connected](const error_code& failed, const tcp::endpoint&) { connected = !failed; });
  io.run_for(kConnectTimeout);
  return connected;
}

std::string host_header(const NodeUrl& target) {
  return target.host.contains(':') ? fmt::format("[{}]:{}", target.host, target.port)
                                   : fmt::format("{}:{}", target.host, target.port);
}

bool readable(tcp::socket& socket) {
  pollfd waiting{socket.native_handle(), POLLIN, 0};
  return ::poll(&waiting, 1, kStopQuestionMs) > 0;
}

}  // namespace

Result<NodeUrl> parse_node_url(std::string_view url) {
  const std::string given(url);
  if (url.starts_with("https://")) {
    return fail(ErrorCode::unsupported, fmt::format("'{}': only http:// is supported", given));
  }
  if (url.starts_with("http://")) url.remove_prefix(7);
  NodeUrl target;
  if (const size_t slash = url.find('/'); slash != url.npos) {
    target.path_prefix = url.substr(slash);
    while (target.path_prefix.ends_with('/')) target.path_prefix.pop_back();
    url = url.substr(0, slash);
  }
  std::string_view port = "8000";
  if (url.starts_with('[')) {
    const size_t end = url.find(']');
    if (end != url.npos) target.host = url.substr(1, end - 1);
    if (end != url.npos && end + 1 < url.size() && url[end + 1] == ':') port = url.substr(end + 2);
  } else {
    const size_t colon = url.find(':');
    target.host = url.substr(0, colon);
    if (colon != url.npos) port = url.substr(colon + 1);
  }
  target.port = port;
  const bool bad_port = port.empty() || port.size() > 5 ||
                        port.find_first_not_of("0123456789") != port.npos ||
                        std::stoul(target.port) > std::numeric_limits<uint16_t>::max();
  if (target.host.empty() || bad_port || target.host.find_first_of(" \r\n\t") != target.host.npos) {
    return fail(ErrorCode::invalid_argument, fmt::format("'{}' is not the URL of a node", given),
                "such as http://localhost:8000");
  }
  return target;
}

Result<HttpClient> HttpClient::to(std::string_view url, std::string api_key) {
  SHOAL_TRY(NodeUrl target, parse_node_url(url));
  return HttpClient(std::string(url), std::move(target), std::move(api_key));
}

Error HttpClient::nobody_answers() const {
  return {ErrorCode::unavailable, fmt::format("no shoal node answers at {}", url_),
          "start one with `shoal serve`"};
}

Result<HttpAnswer> HttpClient::request(std::string_view method, std::string_view path,
                                       std::string_view body) const {
  std::string whole;
  auto answer =
      stream(method, path, body, [&whole](std::string_view part) { whole += part; }, [] { return false; });
  if (answer && answer->body.empty()) answer->body = std::move(whole);
  return answer;
}

Result<HttpAnswer> HttpClient::stream(std::string_view method, std::string_view path, std::string_view body,
                                      const BodyCallback& on_body, const StopQuestion& stopped) const {
  asio::io_context io;
  tcp::socket socket(io);
  if (!connect(io, socket, target_)) return std::unexpected(nobody_answers());
  std::string bytes = fmt::format("{} {}{} HTTP/1.1\r\nhost: {}\r\nuser-agent: shoal/" SHOAL_VERSION
                                  "\r\nconnection: close\r\n",
                                  method, target_.path_prefix, path, host_header(target_));
  if (!api_key_.empty()) bytes += fmt::format("authorization: Bearer {}\r\n", api_key_);
  if (!body.empty()) bytes += "content-type: application/json\r\n";
  if (!body.empty() || method == "POST") bytes += fmt::format("content-length: {}\r\n", body.size());
  bytes += "\r\n";
  bytes += body;
  error_code error;
  asio::write(socket, asio::buffer(bytes), error);

  boost::beast::flat_buffer buffer;
  http::response_parser<http::string_body> parser;
  parser.body_limit(std::numeric_limits<uint64_t>::max());
  parser.eager(true);
  HttpAnswer answer;
  while (!parser.is_done()) {
    if (stopped()) return fail(ErrorCode::cancelled, "stopped");
    if (buffer.size() == 0 && !readable(socket)) continue;
    http::read_some(socket, buffer, parser, error);
    if (error == http::error::need_more) continue;
    if (error) break;
    if (!parser.is_header_done()) continue;
    answer.status = static_cast<int>(parser.get().result_int());
    auto& arrived = parser.get().body();
    if (arrived.empty()) continue;
    if (answer.status == 200) {
      on_body(arrived);
    } else if (answer.body.size() < limits::kMaxBodyBytes) {
      answer.body += arrived;
    }
    arrived.clear();
  }
  if (answer.status != 0 && parser.is_done()) return answer;
  if (answer.status != 0)
    return fail(ErrorCode::unavailable, fmt::format("{} broke off its answer", url_),
                "is the node still there?");
  if (error && error != http::error::end_of_stream &&
      error.category() == http::make_error_code(http::error::end_of_stream).category()) {
    return fail(ErrorCode::malformed, fmt::format("what answers at {} does not speak HTTP", url_));
  }
  return std::unexpected(nobody_answers());
}

Result<Json> HttpClient::json(std::string_view method, std::string_view path, std::string_view body) const {
  SHOAL_TRY(const HttpAnswer answer, request(method, path, body));
  if (answer.status < 200 || answer.status > 299) return std::unexpected(error_of_answer(answer));
  return parse_json(answer.body, fmt::format("the answer of {}", url_));
}

Error error_of_answer(const HttpAnswer& answer) {
  ErrorCode code = ErrorCode::invalid_argument;
  if (answer.status >= 500) code = ErrorCode::internal;
  if (answer.status == 503 || answer.status == 429) code = ErrorCode::unavailable;
  if (answer.status == 404) code = ErrorCode::not_found;
  const auto body = parse_json_object(answer.body, "the answer");
  if (body) {
    if (const auto error = get_object(*body, "error"); error && *error) {
      if (const auto message = get_string(**error, "message"); message && *message)
        return {code, **message, {}};
    }
  }
  return {code, fmt::format("the node answered with status {}", answer.status), "is it a shoal node?"};
}

}  // namespace shoal::cli
