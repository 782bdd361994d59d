// Errors in OpenAI's form: {"error": {"message", "type", "param", "code"}}.
#pragma once

#include "api/api_error.h"
#include "api/http.h"
#include "base/json.h"

namespace shoal::api::openai {

JsonObject error_body(const ApiError& error);
Response error_response(const ApiError& error);
// For requests that name a model: what is not found is the model.
ApiError naming_the_model(ApiError error);

}  // namespace shoal::api::openai
