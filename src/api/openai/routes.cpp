#include "api/openai/routes.h"

#include <fmt/format.h>

#include "api/openai/chat.h"
#include "api/openai/errors.h"
#include "api/openai/sampling_fields.h"
#include "api/openai/text.h"

namespace shoal::api::openai {
namespace {

template <class T>
ApiResult<T> parse_body(const Request& request, ApiResult<T> (*parse)(const JsonObject&)) {
  auto body = parse_json_object(request.body, "the request's body");
  if (!body) return std::unexpected(ApiError{400, body.error().text(), {}, "invalid_json"});
  return parse(*body);
}

void chat_completions(serving::Service& service, const Request& request,
                      const std::shared_ptr<Exchange>& exchange) {
  auto parsed = parse_body(request, parse_chat_request);
  if (!parsed) return exchange->respond(error_response(parsed.error()));
  auto format = make_chat_format(new_identity("chatcmpl-", parsed->generate.model), *parsed);
  run_generation(service,
                 {.requests = spread_choices(parsed->generate, parsed->choices),
                  .choices_per_prompt = parsed->choices,
                  .stream = parsed->stream},
                 std::move(format), exchange);
}

void completions(serving::Service& service, const Request& request,
                 const std::shared_ptr<Exchange>& exchange) {
  auto parsed = parse_body(request, parse_text_request);
  if (!parsed) return exchange->respond(error_response(parsed.error()));
  GenerationPlan plan{.requests = {}, .choices_per_prompt = parsed->choices, .stream = parsed->stream};
  for (const auto& prompt : parsed->generate) {
    for (auto& choice : spread_choices(prompt, parsed->choices)) plan.requests.push_back(std::move(choice));
  }
  auto format = make_text_format(new_identity("cmpl-", parsed->generate.front().model), *parsed);
  run_generation(service, std::move(plan), std::move(format), exchange);
}

JsonObject model_body(const serving::ModelEntry& model) {
  JsonObject body;
  body["id"] = model.name;
  body["object"] = "model";
  body["created"] = model.created;
  body["owned_by"] = "shoal";
  body["architecture"] = model.architecture;
  body["bytes"] = model.bytes;
  body["served"] = model.served;
  return body;
}

Response list_models(const serving::Service& service) {
  JsonArray list;
  for (const auto& model : service.models()) list.push_back(model_body(model));
  JsonObject body;
  body["object"] = "list";
  body["data"] = std::move(list);
  return {.status = 200, .content_type = "application/json", .body = to_text(body), .headers = {}};
}

Response one_model(const serving::Service& service, std::string_view name) {
  for (const auto& model : service.models()) {
    if (model.name == name) {
      return {.status = 200,
              .content_type = "application/json",
              .body = to_text(model_body(model)),
              .headers = {}};
    }
  }
  return error_response(
      {404, fmt::format("The model '{}' does not exist", name), "model", "model_not_found"});
}

}  // namespace

void add_routes(Router& router, serving::Service& service) {
  router.add("POST", "/v1/chat/completions",
             [&service](const RoutedRequest& routed, const std::shared_ptr<Exchange>& exchange) {
               chat_completions(service, routed.request, exchange);
             });
  router.add("POST", "/v1/completions",
             [&service](const RoutedRequest& routed, const std::shared_ptr<Exchange>& exchange) {
               completions(service, routed.request, exchange);
             });
  router.add("GET", "/v1/models",
             [&service](const RoutedRequest&, const std::shared_ptr<Exchange>& exchange) {
               exchange->respond(list_models(service));
             });
  router.add("GET", "/v1/models/{id}",
             [&service](const RoutedRequest& routed, const std::shared_ptr<Exchange>& exchange) {
               exchange->respond(one_model(service, routed.argument));
             });
}

}  // namespace shoal::api::openai
