#include "api/admin/routes.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "api/fields.h"
#include "api/openai/errors.h"
#include "base/limits.h"
#include "planner/names.h"

namespace shoal::api::admin {
namespace {

using ExchangePointer = std::shared_ptr<Exchange>;

Response json_response(const Json& body) {
  return {.status = 200, .content_type = "application/json", .body = to_text(body), .headers = {}};
}

serving::JsonCallback answer_with(ExchangePointer exchange) {
  return [exchange = std::move(exchange)](Result<Json> result) {
    exchange->respond(result ? json_response(*result) : openai::error_response(from_error(result.error())));
  };
}

void place(serving::Service& service, const RoutedRequest& routed, const ExchangePointer& exchange) {
  auto body = parse_json_object(routed.request.body, "the request's body");
  if (!body) return exchange->respond(openai::error_response({400, body.error().text(), {}, "invalid_json"}));
  auto options = parse_place_request(*body, routed.request.head.query);
  if (!options) return exchange->respond(openai::error_response(options.error()));
  service.place(*options, answer_with(exchange));
}

// The instance with this id, out of the cluster's description.
Response one_instance(const serving::Service& service, std::string_view id) {
  const Json cluster = service.cluster();
  const Json* instances = cluster.is_object() ? find(cluster.get_object(), "instances") : nullptr;
  for (const Json& instance : instances && instances->is_array() ? instances->get_array() : JsonArray()) {
    const Json* own_id = instance.is_object() ? find(instance.get_object(), "id") : nullptr;
    if (own_id && own_id->is_string() && own_id->get_string() == id) return json_response(instance);
  }
  return openai::error_response(
      {404, fmt::format("there is no instance '{}'", id), {}, "instance_not_found"});
}

constexpr std::string_view kFrontPage =
    R"(<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>shoal</title></head>
<body style="font-family: system-ui, sans-serif; max-width: 40em; margin: 3em auto; line-height: 1.5">
<h1>shoal</h1>
<p>This node is running. Point any OpenAI client at <code>/v1</code> here:</p>
<ul>
<li><code>POST /v1/chat/completions</code>, <code>POST /v1/completions</code></li>
<li><a href="/v1/models"><code>GET /v1/models</code></a></li>
<li><a href="/v1/cluster"><code>GET /v1/cluster</code></a>, <code>POST /v1/placements</code>, <code>DELETE /v1/instances/{id}</code></li>
<li><a href="/health"><code>GET /health</code></a>, <a href="/metrics"><code>GET /metrics</code></a></li>
</ul>
</body></html>
)";

}  // namespace

ApiResult<serving::PlaceOptions> parse_place_request(const JsonObject& body, std::string_view query) {
  serving::PlaceOptions options;
  Fields fields(body);
  fields.require("model");
  options.model = fields.string("model").value_or("");
  options.minimum_nodes =
      static_cast<uint32_t>(fields.integer("min_nodes", 1, limits::kMaxNodes).value_or(1));
  if (auto context = fields.integer("context", 1, limits::kMaxContextTokens)) {
    options.context_tokens = static_cast<uint32_t>(*context);
  }
  const auto choose = [&fields]<class Choice, size_t count>(const char* name,
                                                            const std::array<std::string_view, count>& names,
                                                            Choice& choice) {
    const auto text = fields.string(name);
    if (!text) return;
    if (const auto found = planner::choice_of<Choice>(names, *text)) {
      choice = *found;
    } else {
      fields.fail(name, fmt::format("'{}' must be one of {}, not '{}'", name, fmt::join(names, ", "), *text),
                  "invalid_value");
    }
  };
  choose("strategy", planner::kStrategyNames, options.strategy);
  choose("objective", planner::kObjectiveNames, options.objective);
  choose("wire", planner::kWireFormatNames, options.wire);
  if (auto concurrency = fields.integer("concurrency", 1, limits::kMaxActiveSequences)) {
    options.concurrency = static_cast<uint32_t>(*concurrency);
  }
  options.preview = fields.boolean("preview").value_or(false);
  if (query == "preview" || query == "preview=true" || query == "preview=1") options.preview = true;
  if (auto error = fields.error()) return std::unexpected(std::move(*error));
  return options;
}

void add_routes(Router& router, serving::Service& service, std::function<std::string()> http_metrics) {
  router.add("GET", "/", [](const RoutedRequest&, const ExchangePointer& exchange) {
    exchange->respond({.status = 200,
                       .content_type = "text/html; charset=utf-8",
                       .body = std::string(kFrontPage),
                       .headers = {}});
  });
  router.add("GET", "/health", [](const RoutedRequest&, const ExchangePointer& exchange) {
    exchange->respond(json_response({{"status", "ok"}}));
  });
  router.add(
      "GET", "/metrics",
      [&service, metrics = std::move(http_metrics)](const RoutedRequest&, const ExchangePointer& exchange) {
        exchange->respond({.status = 200,
                           .content_type = "text/plain; version=0.0.4; charset=utf-8",
                           .body = service.metrics() + metrics(),
                           .headers = {}});
      });
  router.add("GET", "/v1/cluster", [&service](const RoutedRequest&, const ExchangePointer& exchange) {
    exchange->respond(json_response(service.cluster()));
  });
  router.add("POST", "/v1/placements",
             [&service](const RoutedRequest& routed, const ExchangePointer& exchange) {
               place(service, routed, exchange);
             });
  router.add("GET", "/v1/instances/{id}",
             [&service](const RoutedRequest& routed, const ExchangePointer& exchange) {
               exchange->respond(one_instance(service, routed.argument));
             });
  router.add("DELETE", "/v1/instances/{id}",
             [&service](const RoutedRequest& routed, const ExchangePointer& exchange) {
               service.stop_instance(routed.argument, answer_with(exchange));
             });
}

}  // namespace shoal::api::admin
