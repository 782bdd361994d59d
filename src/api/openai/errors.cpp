#include "api/openai/errors.h"

namespace shoal::api::openai {
namespace {

std::string_view error_type(int status) {
  if (status == 429) return "rate_limit_error";
  if (status == 401) return "authentication_error";
  if (status == 403) return "permission_error";
  return status >= 500 ? "server_error" : "invalid_request_error";
}

Json text_or_null(const std::string& text) {
  return text.empty() ? Json(nullptr) : Json(text);
}

}  // namespace

JsonObject error_body(const ApiError& error) {
  JsonObject inner;
  inner["message"] = error.message;
  inner["type"] = error_type(error.status);
  inner["param"] = text_or_null(error.parameter);
  inner["code"] = text_or_null(error.code);
  return {{"error", std::move(inner)}};
}

Response error_response(const ApiError& error) {
  Response response;
  response.status = error.status;
  response.body = to_text(error_body(error));
  if (error.retry_after_seconds)
    response.headers.push_back({"retry-after", std::to_string(*error.retry_after_seconds)});
  if (error.status == 401) response.headers.push_back({"www-authenticate", "Bearer"});
  return response;
}

ApiError naming_the_model(ApiError error) {
  if (error.status == 404) {
    error.parameter = "model";
    error.code = "model_not_found";
  }
  return error;
}

}  // namespace shoal::api::openai
