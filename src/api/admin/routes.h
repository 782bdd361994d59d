// The node's own endpoints: health, metrics, the cluster, placing and stopping models, and the front page.
#pragma once

#include <functional>
#include <string>

#include "api/api_error.h"
#include "api/router.h"
#include "base/json.h"
#include "serving/service.h"

namespace shoal::api::admin {

// {"model", "min_nodes", "context", "strategy", "objective", "wire", "concurrency", "preview"} of POST
// /v1/placements; `query` may say preview too.
ApiResult<serving::PlaceOptions> parse_place_request(const JsonObject& body, std::string_view query);

// `service` and what `http_metrics` refers to must outlive the router.
void add_routes(Router& router, serving::Service& service, std::function<std::string()> http_metrics);

}  // namespace shoal::api::admin
