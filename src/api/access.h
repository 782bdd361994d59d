// Who may use the API: checks on a request's head alone, before its body is read.
//   - A server bound to loopback answers only to loopback names (a page that rebinds its own name to
//   127.0.0.1 gets 403).
//   - A browser's request from another site is refused unless its Origin was allowed; so is a form post,
//   which
//     browsers send across sites without asking.
//   - With an API key, every path but the front page and /health wants it.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "api/api_error.h"
#include "api/http.h"

namespace shoal::api {

struct AccessRules {
  bool loopback_only = true;                 // the server is bound to loopback addresses alone
  std::string api_key;                       // empty: none is asked for
  std::vector<std::string> allowed_origins;  // "https://chat.example"; "*" allows every one
};

std::optional<ApiError> check_access(const AccessRules& rules, const RequestHead& head);

// The Access-Control-* headers for a request whose Origin is allowed; none otherwise.
std::vector<Header> cors_headers(const AccessRules& rules, const RequestHead& head);

// "localhost:8000" -> "localhost", "[::1]:8000" -> "::1"; empty when malformed.
std::string_view host_without_port(std::string_view host);
bool is_loopback_host(std::string_view host);
// Takes time that depends on the lengths alone.
bool equals_in_constant_time(std::string_view a, std::string_view b);

}  // namespace shoal::api
