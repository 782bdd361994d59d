#include "cluster/facts.h"

#include <algorithm>
#include <array>
#include <fmt/format.h>

#include "base/limits.h"
#include "cluster/fact_fields.h"
#include "planner/names.h"

namespace shoal::cluster {
namespace {

constexpr size_t kMaxTextBytes = 4096;  // messages of Errors
constexpr size_t kMaxAddresses = 64;
constexpr size_t kMaxModels = 4096;
constexpr size_t kMaxWorkers = 1024;

constexpr std::array<std::string_view, 5> kWorkerStates = {"starting", "loading", "loaded", "ready",
                                                           "failed"};
constexpr std::array<std::string_view, 4> kInstanceStates = {"loading", "ready", "failed", "stopped"};

Result<std::optional<Error>> optional_error(const JsonObject& object) {
  SHOAL_TRY(const JsonObject* error, get_object(object, "error"));
  if (!error) return std::nullopt;
  SHOAL_TRY(Error value, error_from_json(*error));
  return value;
}

Result<std::string> address(const Json& element) {
  if (!element.is_string() || element.get_string().size() > kMaxNameBytes) {
    return fail(ErrorCode::malformed, "'addresses' holds what is no address");
  }
  return std::string(element.get_string());
}

Result<HeldModel> held_model(const JsonObject& object) {
  HeldModel model;
  SHOAL_TRY(model.name, text(object, "name"));
  SHOAL_TRY(model.digest, text(object, "digest"));
  SHOAL_TRY(model.architecture, text(object, "architecture"));
  SHOAL_TRY(model.bytes, integer<uint64_t>(object, "bytes", kMaxBytes));
  return model;
}

Result<WorkerFact> worker_fact(const JsonObject& object) {
  WorkerFact worker;
  SHOAL_TRY(worker.instance, id(object, "instance"));
  SHOAL_TRY(worker.epoch, integer<uint32_t>(object, "epoch"));
  SHOAL_TRY(worker.rank, integer<uint32_t>(object, "rank"));
  SHOAL_TRY(worker.state, state<WorkerState>(object, "state", kWorkerStates));
  SHOAL_TRY(double progress, measure(object, "progress"));
  worker.progress = static_cast<float>(std::min(progress, 1.0));
  SHOAL_TRY(worker.port, integer<uint16_t>(object, "port", UINT16_MAX));
  SHOAL_TRY(worker.error, optional_error(object));
  return worker;
}

Result<RankFact> rank_fact(const JsonObject& object) {
  RankFact rank;
  SHOAL_TRY(rank.node, id(object, "node"));
  SHOAL_TRY(rank.first_layer, integer<uint32_t>(object, "first_layer"));
  SHOAL_TRY(rank.end_layer, integer<uint32_t>(object, "end_layer"));
  SHOAL_TRY(rank.memory_bytes, integer<uint64_t>(object, "memory_bytes", kMaxBytes));
  SHOAL_TRY(rank.share, integer<uint32_t>(object, "share", kWholeShare));
  return rank;
}

// The stages must cut all layers, each node serve one rank, and a stage be the work of few.
Result<> check_ranks(const InstanceFact& fact) {
  uint32_t first = 0, end = 0, together = 0;
  for (size_t index = 0; index < fact.ranks.size(); ++index) {
    const RankFact& rank = fact.ranks[index];
    const bool joins = index > 0 && rank.first_layer == first && rank.end_layer == end;
    const bool follows = rank.first_layer == end && rank.end_layer > end;
    together = joins ? together + 1 : 1;
    auto same_node = [&](const RankFact& other) { return other.node == rank.node; };
    if ((!joins && !follows) || together > kMaxStageRanks || rank.share == 0 ||
        std::ranges::count_if(fact.ranks, same_node) != 1) {
      return fail(ErrorCode::malformed,
                  fmt::format("rank {} of instance {} does not follow the one before", index, fact.id));
    }
    first = rank.first_layer;
    end = rank.end_layer;
  }
  if (fact.ranks.empty() || end != fact.layer_count) {
    return fail(ErrorCode::malformed, fmt::format("the ranks of instance {} cover {} of {} layers", fact.id,
                                                  end, fact.layer_count));
  }
  return {};
}

// Whether others take the text: they refuse a whole fact for one that is too long or not UTF-8.
bool can_be_told(std::string_view text, size_t limit) {
  return text.size() <= limit && parse_json(to_text(Json(text)), "a text").has_value();
}

// As much of the text as can be told.
std::string tellable(std::string_view text) {
  std::string told(text.substr(0, kMaxTextBytes));
  auto beyond_ascii = [](char c) { return static_cast<unsigned char>(c) >= 0x80; };
  if (!can_be_told(told, kMaxTextBytes)) std::replace_if(told.begin(), told.end(), beyond_ascii, '?');
  return told;
}

JsonObject to_json(const WorkerFact& worker) {
  JsonObject object{{"instance", worker.instance}, {"epoch", number(worker.epoch)},
                    {"rank", number(worker.rank)}, {"state", to_string(worker.state)},
                    {"progress", worker.progress}, {"port", number(worker.port)}};
  if (worker.error) object["error"] = cluster::to_json(*worker.error);
  return object;
}

}  // namespace

bool is_id(std::string_view text) {
  auto is_digit = [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); };
  return text.size() == 16 && std::all_of(text.begin(), text.end(), is_digit);
}

std::string_view to_string(WorkerState state) {
  return kWorkerStates[static_cast<size_t>(state)];
}
std::string_view to_string(InstanceState state) {
  return kInstanceStates[static_cast<size_t>(state)];
}
bool is_live(InstanceState state) {
  return state == InstanceState::loading || state == InstanceState::ready;
}

JsonObject to_json(const Error& error) {
  return {
      {"code", to_string(error.code)}, {"message", tellable(error.message)}, {"hint", tellable(error.hint)}};
}

Result<Error> error_from_json(const JsonObject& object) {
  Error error;
  SHOAL_TRY(std::string code, text(object, "code"));
  error.code = error_code_from_string(code);
  SHOAL_TRY(error.message, text(object, "message", kMaxTextBytes));
  SHOAL_TRY(error.hint, text(object, "hint", kMaxTextBytes));
  return error;
}

JsonObject to_json(const NodeFact& fact) {
  JsonArray addresses, models, workers;
  for (const std::string& one : fact.addresses) addresses.emplace_back(one);
  for (const HeldModel& model : fact.models) {
    if (models.size() == kMaxModels || !can_be_told(model.name, kMaxNameBytes)) continue;
    models.push_back(JsonObject{{"name", model.name},
                                {"digest", model.digest},
                                {"architecture", model.architecture},
                                {"bytes", number(model.bytes)}});
  }
  for (const WorkerFact& worker : fact.workers) workers.push_back(to_json(worker));
  JsonArray weight_rates, links;
  for (const WeightRate& rate : fact.weight_rates) weight_rates.push_back(to_json(rate));
  for (const LinkFact& link : fact.links) links.push_back(to_json(link));
  return {{"id", fact.id},
          {"name", fact.name},
          {"version", fact.version},
          {"api_url", fact.api_url},
          {"cpu", fact.cpu},
          {"cores", number(fact.cores)},
          {"total_memory_bytes", number(fact.total_memory_bytes)},
          {"free_memory_bytes", number(fact.free_memory_bytes)},
          {"decode_bytes_per_second", fact.decode_bytes_per_second},
          {"prefill_flops_per_second", fact.prefill_flops_per_second},
          {"weight_rates", std::move(weight_rates)},
          {"links", std::move(links)},
          {"probe_port", number(fact.probe_port)},
          {"addresses", std::move(addresses)},
          {"models", std::move(models)},
          {"workers", std::move(workers)}};
}

JsonObject to_json(const InstanceFact& fact) {
  JsonArray ranks;
  for (const RankFact& rank : fact.ranks) {
    ranks.push_back(JsonObject{{"node", rank.node},
                               {"first_layer", number(rank.first_layer)},
                               {"end_layer", number(rank.end_layer)},
                               {"memory_bytes", number(rank.memory_bytes)},
                               {"share", number(rank.share)}});
  }
  JsonObject object{{"id", fact.id},
                    {"model", fact.model},
                    {"digest", fact.digest},
                    {"epoch", number(fact.epoch)},
                    {"owner", fact.owner},
                    {"state", to_string(fact.state)},
                    {"ranks", std::move(ranks)},
                    {"layer_count", number(fact.layer_count)},
                    {"context_tokens", number(fact.context_tokens)},
                    {"kv_page_tokens", number(fact.kv_page_tokens)},
                    {"kv_page_count", number(fact.kv_page_count)},
                    {"state_slots", number(fact.state_slots)},
                    {"wire", planner::to_string(fact.wire)},
                    {"secret", fact.secret},
                    {"predicted_tokens_per_second", fact.predicted_tokens_per_second}};
  if (fact.error) object["error"] = to_json(*fact.error);
  return object;
}

Result<NodeFact> node_fact_from_json(const JsonObject& object) {
  NodeFact fact;
  SHOAL_TRY(fact.id, id(object, "id"));
  SHOAL_TRY(fact.name, text(object, "name"));
  SHOAL_TRY(fact.version, text(object, "version"));
  SHOAL_TRY(fact.api_url, text(object, "api_url"));
  SHOAL_TRY(fact.cpu, text(object, "cpu"));
  SHOAL_TRY(fact.cores, integer<uint32_t>(object, "cores"));
  SHOAL_TRY(fact.total_memory_bytes, integer<uint64_t>(object, "total_memory_bytes", kMaxBytes));
  SHOAL_TRY(fact.free_memory_bytes, integer<uint64_t>(object, "free_memory_bytes", kMaxBytes));
  SHOAL_TRY(fact.decode_bytes_per_second, measure(object, "decode_bytes_per_second"));
  SHOAL_TRY(fact.prefill_flops_per_second, measure(object, "prefill_flops_per_second"));
  SHOAL_TRY(fact.weight_rates, weight_rates_from_json(object));
  SHOAL_TRY(fact.links, links_from_json(object));
  SHOAL_TRY(fact.probe_port, integer<uint16_t>(object, "probe_port", UINT16_MAX));
  SHOAL_TRY(fact.addresses, list<std::string>(object, "addresses", kMaxAddresses, address));
  SHOAL_TRY(fact.models,
            list<HeldModel>(object, "models", kMaxModels, of_object<HeldModel>("models", held_model)));
  SHOAL_TRY(fact.workers,
            list<WorkerFact>(object, "workers", kMaxWorkers, of_object<WorkerFact>("workers", worker_fact)));
  return fact;
}

Result<InstanceFact> instance_fact_from_json(const JsonObject& object) {
  InstanceFact fact;
  SHOAL_TRY(fact.id, id(object, "id"));
  SHOAL_TRY(fact.model, text(object, "model"));
  SHOAL_TRY(fact.digest, text(object, "digest"));
  SHOAL_TRY(fact.epoch, integer<uint32_t>(object, "epoch"));
  SHOAL_TRY(fact.owner, id(object, "owner"));
  SHOAL_TRY(fact.state, state<InstanceState>(object, "state", kInstanceStates));
  SHOAL_TRY(fact.error, optional_error(object));
  SHOAL_TRY(fact.ranks,
            list<RankFact>(object, "ranks", limits::kMaxNodes, of_object<RankFact>("ranks", rank_fact)));
  SHOAL_TRY(fact.layer_count, integer<uint32_t>(object, "layer_count", limits::kMaxLayers));
  SHOAL_TRY(fact.context_tokens, integer<uint32_t>(object, "context_tokens", limits::kMaxContextTokens));
  SHOAL_TRY(fact.kv_page_tokens, integer<uint32_t>(object, "kv_page_tokens", limits::kMaxContextTokens));
  SHOAL_TRY(fact.kv_page_count, integer<uint32_t>(object, "kv_page_count"));
  SHOAL_TRY(fact.state_slots, integer<uint32_t>(object, "state_slots", limits::kMaxActiveSequences));
  SHOAL_TRY(fact.wire, state<planner::WireFormat>(object, "wire", planner::kWireFormatNames));
  SHOAL_TRY(fact.secret, text(object, "secret"));
  SHOAL_TRY(fact.predicted_tokens_per_second, measure(object, "predicted_tokens_per_second"));
  SHOAL_TRY_VOID(check_ranks(fact));
  return fact;
}

}  // namespace shoal::cluster
