// The parameters that /v1/chat/completions and /v1/completions share.
#pragma once

#include "api/fields.h"
#include "serving/service.h"

namespace shoal::api::openai {

struct CommonParameters {
  uint32_t choices = 1;  // n
  bool stream = false;
  bool include_usage = false;  // stream_options.include_usage
};

// Reads model, sampling, stop, seed, length and stream parameters into `request`; errors stay in `fields`.
// An absent seed is drawn at random.
CommonParameters read_common(Fields& fields, serving::GenerateRequest& request);

// The requests for n choices of one: seeds seed, seed + 1, …
std::vector<serving::GenerateRequest> spread_choices(const serving::GenerateRequest& request,
                                                     uint32_t choices);

}  // namespace shoal::api::openai
