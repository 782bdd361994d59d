#include "api/access.h"

#include <algorithm>
#include <fmt/format.h>

namespace shoal::api {
namespace {

bool is_safe_method(std::string_view method) {
  return method == "GET" || method == "HEAD" || method == "OPTIONS";
}

bool is_open_path(const RequestHead& head) {
  return is_safe_method(head.method) && (head.path == "/" || head.path == "/health");
}

// "http://localhost:8000" -> "localhost:8000"
std::string_view authority_of(std::string_view origin) {
  const size_t scheme = origin.find("://");
  return scheme == origin.npos ? std::string_view() : origin.substr(scheme + 3);
}

bool is_allowed_origin(const AccessRules& rules, const RequestHead& head, std::string_view origin) {
  for (const auto& allowed : rules.allowed_origins) {
    if (allowed == "*" || equals_ignoring_case(allowed, origin)) return true;
  }
  const std::string* host = head.header("host");
  return host && !host->empty() && equals_ignoring_case(authority_of(origin), *host);
}

// Content types that a page of another site may post without the browser asking us first.
bool is_simple_content_type(std::string_view type) {
  type = type.substr(0, type.find(';'));
  while (!type.empty() && type.back() == ' ') type.remove_suffix(1);
  return equals_ignoring_case(type, "text/plain") || equals_ignoring_case(type, "multipart/form-data") ||
         equals_ignoring_case(type, "application/x-www-form-urlencoded");
}

std::optional<ApiError> check_host(const AccessRules& rules, const RequestHead& head) {
  const auto hosts = std::ranges::count_if(
      head.headers, [](const Header& header) { return equals_ignoring_case(header.name, "host"); });
  if (hosts > 1) return ApiError{400, "the request has more than one Host header", {}, "invalid_host"};
  const std::string* host = head.header("host");
  if (!rules.loopback_only || !host) return {};
  if (is_loopback_host(host_without_port(*host))) return {};
  return ApiError{
      403,
      fmt::format("the Host '{}' is not this machine's loopback name; this server listens on loopback only "
                  "(use http://localhost, or listen on another address)",
                  *host),
      {},
      "forbidden_host"};
}

std::optional<ApiError> check_origin(const AccessRules& rules, const RequestHead& head) {
  const std::string* origin = head.header("origin");
  if (origin && !is_allowed_origin(rules, head, *origin)) {
    return ApiError{
        403,
        fmt::format("requests from the site '{}' are not allowed (start the node with --allow-origin {})",
                    *origin, *origin),
        {},
        "forbidden_origin"};
  }
  const std::string* site = head.header("sec-fetch-site");
  if (!origin && site && equals_ignoring_case(*site, "cross-site") && !is_safe_method(head.method)) {
    return ApiError{403, "requests from other sites are not allowed", {}, "forbidden_origin"};
  }
  const std::string* type = head.header("content-type");
  if ((origin || site) && !is_safe_method(head.method) && type && is_simple_content_type(*type)) {
    return ApiError{415,
                    fmt::format("the content type must be application/json, not '{}'", *type),
                    {},
                    "unsupported_content_type"};
  }
  return {};
}

std::optional<ApiError> check_key(const AccessRules& rules, const RequestHead& head) {
  if (rules.api_key.empty() || is_open_path(head) || head.method == "OPTIONS") return {};
  std::string_view given;
  if (const std::string* key = head.header("x-api-key")) {
    given = *key;
  } else if (const std::string* authorization = head.header("authorization");
             authorization && authorization->size() > 7 &&
             equals_ignoring_case(std::string_view(*authorization).substr(0, 7), "bearer ")) {
    given = std::string_view(*authorization).substr(7);
  }
  while (!given.empty() && given.front() == ' ') given.remove_prefix(1);
  if (equals_in_constant_time(given, rules.api_key)) return {};
  return ApiError{401,
                  given.empty()
                      ? "an API key is required: send it as 'Authorization: Bearer KEY' or 'x-api-key: KEY'"
                      : "the API key is not right",
                  {},
                  "invalid_api_key"};
}

bool is_loopback_v4(std::string_view host) {
  if (!host.starts_with("127.")) return false;
  return host.find_first_not_of("0123456789.") == host.npos && std::ranges::count(host, '.') == 3;
}

}  // namespace

std::string_view host_without_port(std::string_view host) {
  if (host.starts_with('[')) {
    const size_t end = host.find(']');
    return end == host.npos ? std::string_view() : host.substr(1, end - 1);
  }
  return host.substr(0, host.find(':'));
}

bool is_loopback_host(std::string_view host) {
  if (host.ends_with('.')) host.remove_suffix(1);
  return equals_ignoring_case(host, "localhost") || host == "::1" || is_loopback_v4(host) ||
         (host.size() > 10 && equals_ignoring_case(host.substr(host.size() - 10), ".localhost"));
}

bool equals_in_constant_time(std::string_view a, std::string_view b) {
  unsigned difference = a.size() == b.size() ? 0 : 1;
  for (size_t i = 0; i < b.size(); ++i) {
    const unsigned char of_a = i < a.size() ? static_cast<unsigned char>(a[i]) : 0;
    difference |= static_cast<unsigned>(of_a ^ static_cast<unsigned char>(b[i]));
  }
  return difference == 0;
}

std::optional<ApiError> check_access(const AccessRules& rules, const RequestHead& head) {
  if (auto refused = check_host(rules, head)) return refused;
  if (auto refused = check_origin(rules, head)) return refused;
  return check_key(rules, head);
}

std::vector<Header> cors_headers(const AccessRules& rules, const RequestHead& head) {
  const std::string* origin = head.header("origin");
  if (!origin || rules.allowed_origins.empty() || !is_allowed_origin(rules, head, *origin)) return {};
  return {{"access-control-allow-origin", *origin},
          {"vary", "Origin"},
          {"access-control-allow-methods", "GET, HEAD, POST, DELETE, OPTIONS"},
          {"access-control-allow-headers", "authorization, content-type, x-api-key"},
          {"access-control-max-age", "600"}};
}

}  // namespace shoal::api
