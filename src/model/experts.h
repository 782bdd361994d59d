// Routers, shared experts and stacks of matrices: what the mixtures of several families have in common beside
// the names of their experts (config.h).
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

// ffn_{gate,up,down}_shexp.weight.
DenseSpec gguf_shared_expert(const std::string& prefix, uint32_t width);
// A layer's mixture as GGUF names it, with a shared expert unless its width is 0.
struct GgufMixture {
  engine::RouterOp router;
  uint32_t width = 0;
  uint32_t shared_width = 0;
  bool may_have_choice_bias =
      false;  // exp_probs_b.bias, where the file has it; else check_tensors refuses it
};
MixtureSpec gguf_mixture(const GgufMixture& sizes, const std::string& prefix, uint32_t hidden_size,
                         const formats::Checkpoint& checkpoint);

// The width of `count` shared experts as one; 0 without any.
Result<uint32_t> shared_experts_width(uint32_t count, uint32_t width);

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
// n_routed_experts (or num_local_experts), num_experts_per_tok, n_group, topk_group, norm_topk_prob and
// routed_scaling_factor.
Result<engine::RouterOp> read_sigmoid_router(Fields& fields, const GroupedRouterDefaults& defaults);
// expert_count, expert_used_count, expert_group_count, expert_group_used_count, expert_gating_func,
// expert_weights_norm and expert_weights_scale. Groups count by their maximum under a softmax.
Result<engine::RouterOp> read_grouped_router(Metadata& metadata, engine::RouterOp::Score absent_score);

// `malformed` if the numbers of a router do not fit together. `where` names the configuration.
Result<> check_router(const engine::RouterOp& router, std::string_view where);

}  // namespace shoal::model
