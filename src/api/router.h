// From method and path to the code that answers. Pure.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "api/http.h"

namespace shoal::api {

struct RoutedRequest {
  Request request;
  std::string argument;  // what stood for {…} in the pattern, decoded
};
using RouteHandler = std::function<void(RoutedRequest request, std::shared_ptr<Exchange> exchange)>;

struct Route {
  std::string method;
  std::string pattern;  // "/v1/models/{id}": a last {…} takes the whole rest of the path, '/' included
  RouteHandler handler;
};

struct RouteMatch {
  const Route* route = nullptr;  // nullptr: no such path, or `allow` says which methods it takes
  std::string argument;
  std::string allow;  // "GET, HEAD"
};

class Router {
 public:
  void add(std::string method, std::string pattern, RouteHandler handler);
  // HEAD finds GET's route. A trailing slash is ignored.
  RouteMatch match(std::string_view method, std::string_view path) const;
  // The pattern that fits the path whatever the method, or "other": a label for metrics.
  std::string_view pattern_of(std::string_view path) const;

 private:
  std::vector<Route> routes_;
};

}  // namespace shoal::api
