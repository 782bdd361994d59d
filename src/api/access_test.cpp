// Host, Origin, content type and key rules; routing; small parsers of HTTP's texts.
#include "api/access.h"

#include <gtest/gtest.h>

#include "api/metrics.h"
#include "api/router.h"

namespace shoal::api {
namespace {

RequestHead head(std::string method, std::vector<Header> headers, std::string path = "/v1/chat/completions") {
  RequestHead head;
  head.method = std::move(method);
  head.path = std::move(path);
  head.headers = std::move(headers);
  return head;
}

int status(const AccessRules& rules, const RequestHead& request) {
  const auto refused = check_access(rules, request);
  return refused ? refused->status : 200;
}

TEST(Access, LoopbackServersAnswerOnlyToLoopbackNames) {
  const AccessRules rules;
  for (std::string host : {"localhost", "localhost:8000", "LOCALHOST:1", "127.0.0.1:8000", "127.9.9.9",
                           "[::1]:8000", "app.localhost:80", "localhost."}) {
    EXPECT_EQ(status(rules, head("GET", {{"Host", host}})), 200) << host;
  }
  for (std::string host : {"evil.example", "evil.example:8000", "192.168.1.4:8000", "127.0.0.1.evil.example",
                           "localhost.evil.example", "[::2]", "[", ""}) {
    EXPECT_EQ(status(rules, head("GET", {{"Host", host}})), 403) << host;
  }
  EXPECT_EQ(status(rules, head("GET", {{"Host", "localhost"}, {"host", "evil.example"}})), 400);
  AccessRules open;
  open.loopback_only = false;
  EXPECT_EQ(status(open, head("GET", {{"Host", "box.lan:8000"}})), 200);
}

TEST(Access, ForeignOriginsAreRefusedUnlessAllowed) {
  AccessRules rules;
  const auto from = [](std::string origin) {
    return head(
        "POST",
        {{"Host", "localhost:8000"}, {"Origin", std::move(origin)}, {"Content-Type", "application/json"}});
  };
  EXPECT_EQ(status(rules, from("https://evil.example")), 403);
  EXPECT_EQ(status(rules, from("null")), 403);
  EXPECT_EQ(status(rules, from("http://localhost:3000")), 403);
  EXPECT_EQ(status(rules, from("http://localhost:8000")), 200);
  EXPECT_TRUE(cors_headers(rules, from("http://localhost:8000")).empty());
  rules.allowed_origins = {"https://chat.example"};
  EXPECT_EQ(status(rules, from("https://chat.example")), 200);
  EXPECT_EQ(status(rules, from("https://chat.example.evil.example")), 403);
  EXPECT_EQ(cors_headers(rules, from("https://chat.example")).front().value, "https://chat.example");
}

TEST(Access, CrossSiteFormPostsAreRefused) {
  const AccessRules rules;
  for (std::string type : {"text/plain", "text/plain;charset=UTF-8", "application/x-www-form-urlencoded",
                           "multipart/form-data; boundary=x"}) {
    EXPECT_EQ(status(rules, head("POST", {{"Host", "localhost:1"},
                                          {"Origin", "http://localhost:1"},
                                          {"Content-Type", type}})),
              415)
        << type;
    EXPECT_EQ(status(rules, head("POST", {{"Host", "localhost:1"},
                                          {"Origin", "http://evil.example"},
                                          {"Content-Type", type}})),
              403)
        << type;
    EXPECT_EQ(status(rules, head("POST", {{"Host", "localhost:1"},
                                          {"Sec-Fetch-Site", "cross-site"},
                                          {"Content-Type", type}})),
              403)
        << type;
    EXPECT_EQ(status(rules, head("POST", {{"Host", "localhost:1"}, {"Content-Type", type}})), 200)
        << "curl: " << type;
  }
}

TEST(Access, KeysAreAskedForEverywhereButOnTheOpenPages) {
  AccessRules rules;
  rules.api_key = "s3cret";
  const auto with = [](Header header, std::string path = "/v1/models") {
    return head("GET", {{"Host", "localhost"}, std::move(header)}, std::move(path));
  };
  EXPECT_EQ(status(rules, with({"Authorization", "Bearer s3cret"})), 200);
  EXPECT_EQ(status(rules, with({"authorization", "bearer s3cret"})), 200);
  EXPECT_EQ(status(rules, with({"X-Api-Key", "s3cret"})), 200);
  EXPECT_EQ(status(rules, with({"Authorization", "Bearer s3cre"})), 401);
  EXPECT_EQ(status(rules, with({"Authorization", "Bearer s3crets"})), 401);
  EXPECT_EQ(status(rules, with({"Authorization", "Basic s3cret"})), 401);
  EXPECT_EQ(status(rules, with({"Accept", "*/*"})), 401);
  EXPECT_EQ(status(rules, with({"Accept", "*/*"}, "/metrics")), 401);
  EXPECT_EQ(status(rules, with({"Accept", "*/*"}, "/health")), 200);
  EXPECT_EQ(status(rules, head("POST", {{"Host", "localhost"}}, "/health")), 401);
}

TEST(Router, FindsRoutesAndSaysWhichMethodsAPathTakes) {
  Router router;
  const auto nothing = [](const RoutedRequest&, const std::shared_ptr<Exchange>&) {};
  router.add("GET", "/v1/models", nothing);
  router.add("GET", "/v1/models/{id}", nothing);
  router.add("DELETE", "/v1/instances/{id}", nothing);
  router.add("GET", "/v1/instances/{id}", nothing);
  EXPECT_EQ(router.match("GET", "/v1/models").route->pattern, "/v1/models");
  EXPECT_EQ(router.match("HEAD", "/v1/models/").route->pattern, "/v1/models");
  EXPECT_EQ(router.match("GET", "/v1/models/org/repo%3AQ4").argument, "org/repo:Q4");
  EXPECT_EQ(router.match("POST", "/v1/instances/x").route, nullptr);
  EXPECT_EQ(router.match("POST", "/v1/instances/x").allow, "DELETE, GET, HEAD");
  EXPECT_EQ(router.match("GET", "/v1/nothing").allow, "");
  EXPECT_EQ(router.match("GET", "/v1/models/%zz").route, nullptr);
  EXPECT_EQ(router.pattern_of("/v1/models/a"), "/v1/models/{id}");
  EXPECT_EQ(router.pattern_of("/../etc/passwd"), "other");
}

TEST(Http, PercentDecodingRefusesBrokenEscapes) {
  EXPECT_EQ(percent_decode("a%20b"), "a b");
  EXPECT_EQ(percent_decode("%2f"), "/");
  for (std::string_view broken : {"%", "%2", "%g0", "%00"})
    EXPECT_EQ(percent_decode(broken), std::nullopt) << broken;
}

TEST(HttpMetrics, CountsByRouteAndStatus) {
  HttpMetrics metrics;
  metrics.request_finished("/v1/models", "GET", 200, milliseconds(50), 10);
  metrics.request_finished("/v1/models", "GET", 200, milliseconds(700), 10);
  metrics.set_connections(3);
  const std::string text = metrics.text();
  for (std::string_view line :
       {"shoal_http_connections 3\n", "shoal_http_response_bytes_total 20\n",
        "shoal_http_requests_total{route=\"/v1/models\",method=\"GET\",status=\"200\"} 2\n",
        "shoal_http_request_seconds_bucket{route=\"/v1/models\",le=\"0.1\"} 1\n",
        "shoal_http_request_seconds_bucket{route=\"/v1/models\",le=\"+Inf\"} 2\n"}) {
    EXPECT_NE(text.find(line), text.npos) << line << text;
  }
}

}  // namespace
}  // namespace shoal::api
