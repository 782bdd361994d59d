#include "api/openai/sampling_fields.h"

#include <algorithm>
#include <charconv>
#include <fmt/format.h>
#include <limits>

#include "base/limits.h"
#include "base/system.h"

namespace shoal::api::openai {
namespace {

void read_stop(Fields& fields, std::vector<std::string>& stop) {
  const Json* value = fields.any("stop");
  if (!value) return;
  if (value->is_string()) {
    stop.emplace_back(value->get_string());
  } else if (value->is_array()) {
    for (const Json& element : value->get_array()) {
      if (!element.is_string()) {
        return fields.fail(
            "stop",
            fmt::format("Invalid type for 'stop': expected strings, but got {} instead.", kind_name(element)),
            "invalid_type");
      }
      stop.emplace_back(element.get_string());
    }
  } else {
    return fields.fail(
        "stop",
        fmt::format("Invalid type for 'stop': expected a string or an array of strings, but got {} instead.",
                    kind_name(*value)),
        "invalid_type");
  }
  if (stop.size() > limits::kMaxStopStrings) {
    fields.fail("stop",
                fmt::format("Invalid 'stop': {} strings, but at most {} are taken.", stop.size(),
                            limits::kMaxStopStrings),
                "array_above_max_length");
  }
  for (const auto& text : stop) {
    if (text.empty() || text.size() > limits::kMaxStopStringBytes) {
      fields.fail("stop",
                  fmt::format("Invalid 'stop': a stop string must have 1 to {} bytes, but one has {}.",
                              limits::kMaxStopStringBytes, text.size()),
                  "invalid_value");
    }
  }
}

void read_logit_bias(Fields& fields, runtime::SamplingParameters& sampling) {
  const JsonObject* biases = fields.object("logit_bias");
  if (!biases) return;
  if (biases->size() > limits::kMaxLogitBias) {
    return fields.fail("logit_bias",
                       fmt::format("Invalid 'logit_bias': {} tokens, but at most {} are taken.",
                                   biases->size(), limits::kMaxLogitBias),
                       "object_above_max_properties");
  }
  for (const auto& member : *biases) {
    const std::string_view key(member.key().data(), member.key().size());
    int32_t token = -1;
    const auto parsed = std::from_chars(key.data(), key.data() + key.size(), token);
    if (parsed.ec != std::errc() || parsed.ptr != key.data() + key.size() || token < 0) {
      return fields.fail("logit_bias",
                         fmt::format("Invalid key in 'logit_bias': '{}' is not a token id.", key),
                         "invalid_value");
    }
    const double bias = member.value().is_number() ? member.value().to_number<double>() : 1e9;
    if (!(bias >= -100 && bias <= 100)) {
      return fields.fail(
          "logit_bias",
          fmt::format("Invalid 'logit_bias' of token {}: expected a number from -100 to 100, but got {}.",
                      token, to_text(member.value())),
          "invalid_value");
    }
    sampling.logit_bias.emplace_back(token, static_cast<float>(bias));
  }
}

void read_length(Fields& fields, serving::GenerateRequest& request) {
  constexpr int64_t kMost = std::numeric_limits<uint32_t>::max();
  // The newer name wins.
  const auto old_name = fields.integer("max_tokens", 1, kMost);
  const auto new_name = fields.integer("max_completion_tokens", 1, kMost);
  if (const auto tokens = new_name ? new_name : old_name) request.max_tokens = static_cast<uint32_t>(*tokens);
}

void read_seed(Fields& fields, runtime::SamplingParameters& sampling) {
  const Json* value = fields.any("seed");
  if (!value) {
    sampling.seed = random_u64();
  } else if (value->is_uint64()) {
    sampling.seed = value->get_uint64();
  } else if (auto seed = fields.integer("seed", std::numeric_limits<int64_t>::min(),
                                        std::numeric_limits<int64_t>::max())) {
    sampling.seed = static_cast<uint64_t>(*seed);
  }
}

}  // namespace

CommonParameters read_common(Fields& fields, serving::GenerateRequest& request) {
  fields.require("model");
  request.model = fields.string("model").value_or("");
  auto& sampling = request.sampling;
  sampling.temperature = static_cast<float>(fields.number("temperature", 0, 2).value_or(1));
  sampling.top_p = static_cast<float>(fields.number("top_p", 0, 1).value_or(1));
  sampling.min_p = static_cast<float>(fields.number("min_p", 0, 1).value_or(0));
  // -1 is how some clients say "all".
  sampling.top_k =
      static_cast<uint32_t>(std::max<int64_t>(0, fields.integer("top_k", -1, 1'000'000).value_or(0)));
  sampling.presence_penalty = static_cast<float>(fields.number("presence_penalty", -2, 2).value_or(0));
  sampling.frequency_penalty = static_cast<float>(fields.number("frequency_penalty", -2, 2).value_or(0));
  sampling.repetition_penalty =
      static_cast<float>(fields.number("repetition_penalty", 0.01, 100).value_or(1));
  read_logit_bias(fields, sampling);
  read_seed(fields, sampling);
  read_stop(fields, request.stop);
  read_length(fields, request);
  request.ignore_end_of_sequence = fields.boolean("ignore_eos").value_or(false);

  CommonParameters common;
  common.choices = static_cast<uint32_t>(fields.integer("n", 1, limits::kMaxChoices).value_or(1));
  common.stream = fields.boolean("stream").value_or(false);
  if (const JsonObject* options = fields.object("stream_options")) {
    Fields inner(*options, "stream_options.");
    common.include_usage = inner.boolean("include_usage").value_or(false);
    inner.ignore({"include_obfuscation", "continuous_usage_stats"});
    if (auto error = inner.error()) fields.fail(std::move(*error));
    if (!common.stream)
      fields.fail("stream_options", "'stream_options' is only taken with 'stream': true.", "invalid_value");
  }
  fields.ignore({"user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key",
                 "prompt_cache_retention"});
  return common;
}

std::vector<serving::GenerateRequest> spread_choices(const serving::GenerateRequest& request,
                                                     uint32_t choices) {
  std::vector<serving::GenerateRequest> spread(choices, request);
  for (uint32_t i = 0; i < choices; ++i) spread[i].sampling.seed += i;
  return spread;
}

}  // namespace shoal::api::openai
