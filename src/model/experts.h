// Where the experts of a mixture are in a checkpoint, and the router's numbers in a configuration. Files keep
// experts one by one or in stacks; which way is seen from the tensors that are there.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"
#include "formats/checkpoint.h"
#include "model/decoder_spec.h"
#include "model/fields.h"
#include "model/metadata.h"

namespace shoal::model {

struct ExpertNames {
  std::string_view list = "experts.";  // then "3." for expert 3
  std::string_view gate = "gate_proj", up = "up_proj", down = "down_proj";
};

// Fills gate, up and down of the mixture, whose router_op.expert_count and width are set. After `prefix`
// ("model.layers.3.mlp.") there are, with E experts of width F:
//   experts.N.gate_proj.weight [F, D] and so on, one for each expert;
//   switch_mlp.gate_proj.weight [E, F, D] and so on (MLX);
//   experts.gate_up_proj [E, 2F, D], gate first, and experts.down_proj [E, D, F].
void name_experts(MixtureSpec& mixture, const std::string& prefix, uint32_t hidden_size,
                  const formats::Checkpoint& checkpoint, const ExpertNames& names = {});

// ffn_{gate,up,down}_exps.weight, or ffn_gate_up_exps.weight [E, 2F, D] in place of the first two, or one
// tensor for each expert as old files have them (ffn_gate.3.weight).
void name_gguf_experts(MixtureSpec& mixture, const std::string& prefix, uint32_t hidden_size,
                       const formats::Checkpoint& checkpoint);

// Matrices 0 to count - 1 of a stack [count, ...]. Only the first where the file has no such stack, which is
// enough for check_tensors to say so: a configuration alone must not cost memory.
std::vector<TensorRef> stack_parts(const TensorRef& stack, uint32_t count,
                                   const formats::Checkpoint& checkpoint);

// The router of DeepSeek-V3 (https://arxiv.org/abs/2412.19437): sigmoids, of which a bias chooses the best
// groups by the sum of their two best experts, then the best experts. What an absent field means is a matter
// of the family.
struct GroupedRouterDefaults {
  uint32_t experts = 0;
  uint32_t used = 0;
  uint32_t groups = 1;
  uint32_t used_groups = 1;
  double scale = 1;
};
// n_routed_experts, num_experts_per_tok, n_group, topk_group, norm_topk_prob and routed_scaling_factor.
Result<engine::RouterOp> read_sigmoid_router(Fields& fields, const GroupedRouterDefaults& defaults);
// expert_count, expert_used_count, expert_group_count, expert_group_used_count, expert_gating_func,
// expert_weights_norm and expert_weights_scale. Groups count by their maximum under a softmax.
Result<engine::RouterOp> read_grouped_router(Metadata& metadata, engine::RouterOp::Score absent_score);

// `malformed` if the numbers of a router do not fit together. `where` names the configuration.
Result<> check_router(const engine::RouterOp& router, std::string_view where);

}  // namespace shoal::model
