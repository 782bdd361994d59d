// OpenAI's chat messages and tools, checked and brought to the common form that chat templates take:
// `content` is a string, a tool call's arguments are an object, `developer` is `system`.
#pragma once

#include "api/api_error.h"
#include "base/json.h"

namespace shoal::api::openai {

ApiResult<JsonArray> normalise_messages(const JsonArray& messages);
ApiResult<JsonArray> check_tools(const JsonArray& tools);

}  // namespace shoal::api::openai
