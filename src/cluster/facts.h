// What nodes say of themselves and owners of their instances, as plain values with a JSON form. from_json()
// treats its input as hostile: peers may be of another version, or malicious.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "cluster/bus.h"
#include "cluster/measured_facts.h"
#include "planner/planner.h"

namespace shoal::cluster {

struct HeldModel {
  std::string name;    // as users ask for it
  std::string digest;  // of the files' headers and sizes: two nodes serve together only if equal
  std::string architecture;
  uint64_t bytes = 0;
};

// A rank as its host node sees it.
enum class WorkerState : uint8_t { starting, loading, loaded, ready, failed };
struct WorkerFact {
  std::string instance;
  uint32_t epoch = 0;
  uint32_t rank = 0;
  WorkerState state = WorkerState::starting;
  float progress = 0;          // of loading, 0 to 1
  uint16_t port = 0;           // where the previous rank connects; 0 until known
  std::optional<Error> error;  // when failed
};

// Written by the node alone, under the fact name "node".
struct NodeFact {
  NodeId id;
  std::string name;  // for people
  std::string version;
  std::string api_url;  // where its HTTP API answers, as seen by others; empty when loopback only
  std::string cpu;
  uint32_t cores = 0;
  uint64_t total_memory_bytes = 0;
  uint64_t free_memory_bytes = 0;       // that shoal may still use: --memory less what its workers hold
  double decode_bytes_per_second = 0;   // measured; 0: not yet
  double prefill_flops_per_second = 0;  // measured, of weights of 8 bits; 0: not yet
  std::vector<WeightRate> weight_rates;
  std::vector<LinkFact> links;         // from this node to others
  uint16_t probe_port = 0;             // where others measure their links to it; 0: nowhere
  std::vector<std::string> addresses;  // numeric, where peers reach this node's workers, best first
  std::vector<HeldModel> models;
  std::vector<WorkerFact> workers;
};

// One rank of an instance. Ranks that follow each other and have the same layers share their stage: each
// holds a part of every matrix (world.h says who talks to whom).
struct RankFact {
  NodeId node;
  uint32_t first_layer = 0;
  uint32_t end_layer = 0;
  uint64_t memory_bytes = 0;  // predicted
  uint32_t share = 1000;      // of the stage's work, of kWholeShare
};

enum class InstanceState : uint8_t { loading, ready, failed, stopped };

// Written by the instance's owner alone, under the fact name "instance/<id>".
struct InstanceFact {
  std::string id;
  std::string model;
  std::string digest;
  uint32_t epoch = 0;  // a message or worker of an older epoch is dropped
  NodeId owner;
  InstanceState state = InstanceState::loading;
  std::optional<Error> error;   // when failed
  std::vector<RankFact> ranks;  // stage by stage, in pipeline order
  uint32_t layer_count = 0;
  uint32_t context_tokens = 0;
  uint32_t kv_page_tokens = 0;
  uint32_t kv_page_count = 0;  // the same on every stage
  uint32_t state_slots = 0;    // sequences alive at once, where layers keep a recurrent state; else 0
  planner::WireFormat wire = planner::WireFormat::f32;  // of hidden rows between stages
  std::string secret;                                   // for the Links of this epoch
  double predicted_tokens_per_second = 0;
};

inline constexpr uint32_t kWholeShare = 1000;  // see RankFact
inline constexpr uint32_t kMaxStageRanks = 8;  // collectives of more are no gain

// 16 lower-case hexadecimal digits: what a NodeId, and an instance's id, must look like.
bool is_id(std::string_view text);

std::string_view to_string(WorkerState state);
std::string_view to_string(InstanceState state);
// Loading or ready: its workers are wanted.
bool is_live(InstanceState state);

JsonObject to_json(const NodeFact& fact);
JsonObject to_json(const InstanceFact& fact);
Result<NodeFact> node_fact_from_json(const JsonObject& object);
Result<InstanceFact> instance_fact_from_json(const JsonObject& object);
// {"code", "message", "hint"}: how an Error travels between nodes.
JsonObject to_json(const Error& error);
Result<Error> error_from_json(const JsonObject& object);

}  // namespace shoal::cluster
