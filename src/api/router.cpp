#include "api/router.h"

namespace shoal::api {
namespace {

std::string_view without_trailing_slash(std::string_view path) {
  return path.size() > 1 && path.ends_with('/') ? path.substr(0, path.size() - 1) : path;
}

// What stands for the pattern's {…} (empty without one), or nullopt when the path is another.
std::optional<std::string> fit(std::string_view pattern, std::string_view path) {
  const size_t brace = pattern.find('{');
  if (brace == pattern.npos) return pattern == path ? std::optional<std::string>("") : std::nullopt;
  if (!path.starts_with(pattern.substr(0, brace)) || path.size() == brace) return std::nullopt;
  return percent_decode(path.substr(brace));
}

}  // namespace

void Router::add(std::string method, std::string pattern, RouteHandler handler) {
  routes_.push_back({std::move(method), std::move(pattern), std::move(handler)});
}

RouteMatch Router::match(std::string_view method, std::string_view path) const {
  path = without_trailing_slash(path);
  RouteMatch match;
  const std::string_view wanted = method == "HEAD" ? "GET" : method;
  for (const Route& route : routes_) {
    auto argument = fit(route.pattern, path);
    if (!argument) continue;
    if (route.method == wanted) return {&route, std::move(*argument), {}};
    if (!match.allow.empty()) match.allow += ", ";
    match.allow += route.method == "GET" ? "GET, HEAD" : route.method;
  }
  return match;
}

std::string_view Router::pattern_of(std::string_view path) const {
  path = without_trailing_slash(path);
  for (const Route& route : routes_) {
    if (fit(route.pattern, path)) return route.pattern;
  }
  return "other";
}

}  // namespace shoal::api
