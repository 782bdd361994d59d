// Puts OpenAI's endpoints on the router.
#pragma once

#include "api/router.h"
#include "serving/service.h"

namespace shoal::api::openai {

// `service` must outlive the router.
void add_routes(Router& router, serving::Service& service);

}  // namespace shoal::api::openai
