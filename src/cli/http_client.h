// Asks a node over HTTP, one request after the other, and waits for the answer. For commands, which have
// nothing else to do meanwhile. Connections are not kept.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "base/json.h"
#include "base/result.h"

namespace shoal::cli {

struct NodeUrl {
  std::string host;
  std::string port;
  std::string path_prefix;  // without a slash at its end
};
// "http://localhost:8000", "localhost:8000", "http://[::1]:8000/prefix". Errors: invalid_argument; https is
// unsupported.
Result<NodeUrl> parse_node_url(std::string_view url);

struct HttpAnswer {
  int status = 0;
  std::string body;
};

class HttpClient {
 public:
  // `api_key` may be empty.
  static Result<HttpClient> to(std::string_view url, std::string api_key);

  // Any answer is a success here. An Error means that nobody answered: unavailable, with the hint to start a
  // node. `body` empty: none is sent.
  Result<HttpAnswer> request(std::string_view method, std::string_view path,
                             std::string_view body = {}) const;

  // The same, and `on_body` gets the parts of a 200 answer as they come (the returned body is then empty).
  // `stopped` is asked about ten times a second and after every part; true ends the request with `cancelled`.
  using BodyCallback = std::function<void(std::string_view part)>;
  using StopQuestion = std::function<bool()>;
  Result<HttpAnswer> stream(std::string_view method, std::string_view path, std::string_view body,
                            const BodyCallback& on_body, const StopQuestion& stopped) const;

  // The JSON of a 2xx answer; else the Error that the answer's body describes.
  Result<Json> json(std::string_view method, std::string_view path, std::string_view body = {}) const;

  const std::string& url() const { return url_; }

 private:
  HttpClient(std::string url, NodeUrl target, std::string api_key)
      : url_(std::move(url)), target_(std::move(target)), api_key_(std::move(api_key)) {}
  Error nobody_answers() const;

  std::string url_;
  NodeUrl target_;
  std::string api_key_;
};

// What {"error": {"message": …}} says, as an Error; the status chooses its code.
Error error_of_answer(const HttpAnswer& answer);

}  // namespace shoal::cli
