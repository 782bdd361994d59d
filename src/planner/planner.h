// Which devices serve a model, in which order, cut where and shared by which ranks, and what that should
// give. Pure: the same input gives the same placements; no clock, no I/O. Figures are measured ones where the
// caller has them; what is 0 counts as not measured and gets a default (costs.h).
//
// A stage is a run of layers; its ranks hold a share of every matrix of it (tensor parallelism) and add up
// what they computed after each layer half. A stage of one rank is an ordinary pipeline stage.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"

namespace shoal::planner {

struct Device {
  std::string node;                     // NodeId
  std::string name;                     // for people
  uint64_t free_memory_bytes = 0;       // that shoal may use
  double decode_bytes_per_second = 0;   // measured: weight bytes streamed in decode
  double prefill_flops_per_second = 0;  // measured, of weights like the model's: callers know its types
  bool holds_model = true;
  uint32_t threads = 0;            // that compute; of use only where prefill was not measured
  double layer_fixed_seconds = 0;  // of a layer however few bytes it has: barriers, kernel launches
};

enum class LinkKind : uint8_t { unknown, loopback, ethernet, wifi, thunderbolt, infiniband };

struct LinkFigures {  // directed, between devices[from] and devices[to]
  uint32_t from = 0, to = 0;
  double round_trip_seconds = 0;  // p50
  double bytes_per_second = 0;
  double round_trip_p99_seconds = 0;  // 0: not measured
  LinkKind kind = LinkKind::unknown;
};

// What is below `active_bytes` may be left 0. Without feed_forward_units ranks cannot share the layer;
// without heads each has all of its attention. Of a mixture whose experts are not told, active_bytes stands
// for them.
struct LayerDemand {
  uint64_t weight_bytes = 0;
  uint64_t kv_bytes_per_token = 0;
  uint64_t flops_per_token = 0;
  uint64_t active_bytes = 0;              // of weight_bytes, what one token reads; 0: all of them
  uint64_t state_bytes_per_sequence = 0;  // of a recurrent layer
  uint32_t expert_count = 0, experts_used = 0;
  uint64_t expert_bytes = 0;  // of weight_bytes, of all experts that a router chooses from
  uint32_t query_heads = 0;
  uint32_t kv_heads = 0;            // attention is cut between these, or between query heads where more even
  uint64_t attention_bytes = 0;     // of weight_bytes, cut by heads
  uint32_t feed_forward_units = 0;  // pieces that the width can be cut into (blocks of the weights' type)
  uint64_t replicated_bytes = 0;    // of weight_bytes, whole on each rank: norms, routers, latent projections
  bool kv_replicated = false;       // latent attention: all heads read the same rows
  uint32_t all_reduces = 2;         // a token's, where ranks share the layer
};

struct ModelDemand {
  std::string name;
  std::vector<LayerDemand> layers;
  uint64_t embedding_bytes = 0;  // on each rank of the first stage
  uint64_t head_bytes = 0;       // on the last stage, cut by rows of the vocabulary
  bool tied_embedding =
      false;  // head and embedding are the same bytes: counted once where one stage has both
  uint64_t head_flops_per_token = 0;
  uint64_t hidden_bytes_per_token = 0;    // activations between stages, in f32
  uint64_t overhead_bytes_per_stage = 0;  // process, scratch, buffers: of each rank
};

enum class Strategy : uint8_t {
  automatic,
  pipeline,  // one rank a stage
  tensor,    // one stage, of at least two ranks
  hybrid,    // at least two stages, one of them or more with at least two ranks
};
enum class Objective : uint8_t {
  latency,     // tokens/s of one user
  throughput,  // tokens/s of `concurrency` users together
  ttft,        // seconds to the first token of a prompt of `prompt_tokens`
};
enum class WireFormat : uint8_t { f32, bf16 };  // of hidden rows between stages; sums within a stage stay f32

struct PlanOptions {
  uint32_t context_tokens = 4096;  // KV to hold: context_tokens * concurrency
  uint32_t concurrency = 1;
  uint32_t state_slots = 0;  // sequences that recurrent layers hold states for
  uint32_t minimum_nodes = 1;
  std::vector<std::string> only_nodes;  // ids or names; empty: any
  Strategy strategy = Strategy::automatic;
  Objective objective = Objective::latency;
  WireFormat wire = WireFormat::f32;
  uint32_t prompt_tokens = 512;         // of the first-token figure
  uint32_t prefill_chunk_tokens = 512;  // rows that go through the stages together
};

struct RankPlan {
  std::string node;
  uint32_t share_per_mille = 1000;  // of the stage's heads and widths; a stage's shares add up to 1000
  uint64_t memory_bytes = 0;
  double decode_seconds = 0;  // compute of one token, without waiting for others
};

struct StagePlan {
  std::string node;  // of ranks[0], which embeds, samples and speaks for the stage
  uint32_t first_layer = 0, end_layer = 0;
  uint64_t memory_bytes = 0;      // of the rank that holds most
  double decode_seconds = 0;      // one token: the slowest rank layer by layer, and the sums between ranks
  std::vector<RankPlan> ranks;    // at least one
  double all_reduce_seconds = 0;  // of decode_seconds
  double hop_seconds = 0;  // one token's hidden row to the next stage; the last one's: the token's way back
};

struct Placement {
  std::vector<StagePlan> stages;       // in pipeline order
  double tokens_per_second = 0;        // batch 1 decode
  double first_token_seconds = 0;      // of a prompt of PlanOptions::prompt_tokens
  std::vector<std::string> reasons;    // why devices were left out, what bounds it
  double batch_tokens_per_second = 0;  // of PlanOptions::concurrency sequences together
  double bf16_tokens_per_second = 0;   // batch 1, were hidden rows sent as bf16
  double bf16_first_token_seconds = 0;
  bool exact = false;  // no placement of those that docs/decisions/0010-planner.md describes was left unseen
};

// Placements that fit, the best by `options.objective` first, at least one; an out_of_memory Error names what
// is missing when none fits.
Result<std::vector<Placement>> plan(const std::vector<Device>& devices, const std::vector<LinkFigures>& links,
                                    const ModelDemand& model, const PlanOptions& options);

}  // namespace shoal::planner
