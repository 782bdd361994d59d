// What a node offers to its front ends (HTTP dialects, terminal): generate, look at the cluster, place and stop
// models. One internal path: every dialect becomes a GenerateRequest and reads the same events.
// Everything runs on the node's one event-loop thread: calls are made there, callbacks come there.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "planner/planner.h"
#include "runtime/sampling.h"

namespace shoal::serving {

// Messages in the common chat form ({"role", "content", …}), rendered by the model's template.
struct ChatPrompt {
  JsonArray messages;
  JsonArray tools;                // empty: none
  JsonObject template_arguments;  // e.g. {"enable_thinking": false}
};
struct TextPrompt {
  std::string text;               // tokenised as it is, special tokens recognised, bos added as the model wants it
};
using Prompt = std::variant<ChatPrompt, TextPrompt, std::vector<int32_t>>;

struct GenerateRequest {
  std::string model;              // name of a model or id of an instance
  Prompt prompt;
  runtime::SamplingParameters sampling;
  std::optional<uint32_t> max_tokens;  // nullopt: up to the context's end
  std::vector<std::string> stop;
  bool ignore_end_of_sequence = false;
  bool logprobs = false;
};

enum class FinishReason { stop, length, cancelled };

struct Usage {
  uint32_t prompt_tokens = 0;
  uint32_t cached_tokens = 0;     // of the prompt, taken from the prefix cache
  uint32_t completion_tokens = 0;
};

struct TokenText {                // for logprobs
  std::string text;               // the token's own bytes, perhaps a part of a character
  runtime::SampledToken sampled;
  std::vector<std::string> alternative_texts;  // of sampled.alternatives, in their order
};

// Exactly one of on_finished / on_error ends a generation; nothing comes after it.
class GenerationListener {
 public:
  virtual ~GenerationListener() = default;
  virtual void on_text(std::string_view text, const std::vector<TokenText>& tokens) = 0;  // whole UTF-8 characters
  virtual void on_finished(FinishReason reason, std::optional<std::string> stop_string, const Usage& usage) = 0;
  virtual void on_error(const Error& error) = 0;
};

using GenerationId = uint64_t;

struct ModelEntry {
  std::string name;
  std::string architecture;
  uint64_t bytes = 0;
  int64_t created = 0;
  bool served = false;            // an instance of it is up
};

struct PlaceOptions {
  std::string model = {};
  bool preview = false;
  uint32_t minimum_nodes = 1;
  std::optional<uint32_t> context_tokens = {};
  planner::Strategy strategy = planner::Strategy::automatic;  // automatic: what keeps a single node's tokens
  planner::Objective objective = planner::Objective::latency;
  planner::WireFormat wire = planner::WireFormat::f32;
  std::optional<uint32_t> concurrency = {};                   // conversations at once to hold and plan for
};

using JsonCallback = std::function<void(Result<Json>)>;

class Service {
 public:
  virtual ~Service() = default;

  // The listener hears nothing before generate() returned.
  virtual GenerationId generate(GenerateRequest request, std::shared_ptr<GenerationListener> listener) = 0;
  virtual void cancel(GenerationId generation) = 0;  // the client went away; the listener hears nothing more

  virtual std::vector<ModelEntry> models() const = 0;
  virtual Json cluster() const = 0;     // {"self", "cluster", "nodes": [...], "instances": [...]}: docs/api.md
  virtual void place(const PlaceOptions& options, JsonCallback done) = 0;   // preview: {"placements": [...]}; else the instance, once ready
  virtual void stop_instance(const std::string& instance_or_model, JsonCallback done) = 0;
  virtual std::string metrics() const = 0;  // Prometheus text of serving; the API adds its own
};

}  // namespace shoal::serving
