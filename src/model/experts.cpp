#include "model/experts.h"

#include <fmt/format.h>

#include "base/limits.h"
#include "model/config.h"

namespace shoal::model {
std::vector<TensorRef> stack_parts(const TensorRef& stack, uint32_t count,
                                   const formats::Checkpoint& checkpoint) {
  const formats::TensorInfo* tensor = checkpoint.find(stack.name);
  const bool is_there = tensor && tensor->shape == stack.shape;
  std::vector<TensorRef> parts(is_there ? count : 1, stack);
  for (uint32_t index = 0; index < parts.size(); ++index) parts[index].index = index;
  return parts;
}

DenseSpec gguf_shared_expert(const std::string& prefix, uint32_t width) {
  DenseSpec dense;
  dense.width = width;
  dense.gate = TensorRef(prefix + "ffn_gate_shexp.weight");
  dense.up = TensorRef(prefix + "ffn_up_shexp.weight");
  dense.down = TensorRef(prefix + "ffn_down_shexp.weight");
  return dense;
}

MixtureSpec gguf_mixture(const GgufMixture& sizes, const std::string& prefix, uint32_t hidden_size,
                         const formats::Checkpoint& checkpoint) {
  MixtureSpec mixture;
  mixture.router_op = sizes.router;
  mixture.width = sizes.width;
  if (sizes.may_have_choice_bias && checkpoint.find(prefix + "exp_probs_b.bias"))
    mixture.choice_bias = TensorRef(prefix + "exp_probs_b.bias");
  name_gguf_experts(mixture, prefix, hidden_size, checkpoint);
  if (sizes.shared_width != 0) mixture.shared = gguf_shared_expert(prefix, sizes.shared_width);
  return mixture;
}

Result<uint32_t> shared_experts_width(uint32_t count, uint32_t width) {
  const uint64_t product = uint64_t{count} * width;
  if (product > limits::kMaxWidth) {
    return fail(ErrorCode::malformed, fmt::format("{} shared experts of width {} are wider than {}", count,
                                                  width, limits::kMaxWidth));
  }
  return static_cast<uint32_t>(product);
}

Result<> check_router(const engine::RouterOp& router, std::string_view where) {
  const uint32_t groups = router.group_count, experts = router.expert_count;
  if (experts % groups != 0 || router.used_groups > groups) {
    return fail(ErrorCode::malformed, fmt::format("{}: {} of {} groups cannot be chosen among {} experts",
                                                  where, router.used_groups, groups, experts));
  }
  const uint32_t group_size = experts / groups;
  const bool pairs = groups > 1 && router.group_score == engine::RouterOp::GroupScore::top_two_sum;
  if (router.used > group_size * router.used_groups || (pairs && group_size < 2)) {
    return fail(ErrorCode::malformed, fmt::format("{}: {} experts cannot be chosen from {} groups of {}",
                                                  where, router.used, router.used_groups, group_size));
  }
  return {};
}

Result<engine::RouterOp> read_sigmoid_router(Fields& fields, const GroupedRouterDefaults& defaults) {
  engine::RouterOp router;
  router.score = engine::RouterOp::Score::sigmoid;
  router.group_score = engine::RouterOp::GroupScore::top_two_sum;
  SHOAL_TRY(auto experts, fields.get_count("n_routed_experts", limits::kMaxExperts));
  SHOAL_TRY(const auto other_name, fields.get_count("num_local_experts", limits::kMaxExperts));
  if (!experts) experts = other_name;
  SHOAL_TRY(const auto used, fields.get_count("num_experts_per_tok", limits::kMaxExperts));
  SHOAL_TRY(const auto groups, fields.get_count("n_group", limits::kMaxExperts));
  SHOAL_TRY(const auto used_groups, fields.get_count("topk_group", limits::kMaxExperts));
  SHOAL_TRY(const auto scale, fields.get_positive("routed_scaling_factor"));
  SHOAL_TRY(router.normalise, fields.get_flag("norm_topk_prob", true));
  router.expert_count = experts.value_or(defaults.experts);
  router.used = used.value_or(defaults.used);
  router.group_count = groups.value_or(defaults.groups);
  router.used_groups = used_groups.value_or(defaults.used_groups);
  router.normalise_epsilon = 1e-20F;
  router.scale = static_cast<float>(scale.value_or(defaults.scale));
  SHOAL_TRY_VOID(check_router(router, "config.json"));
  return router;
}

Result<engine::RouterOp> read_grouped_router(Metadata& metadata, engine::RouterOp::Score absent_score) {
  using Score = engine::RouterOp::Score;
  constexpr uint32_t kSoftmax = 1, kSigmoid = 2;
  engine::RouterOp router;
  SHOAL_TRY(router.expert_count, metadata.require_count("expert_count", limits::kMaxExperts));
  SHOAL_TRY(router.used, metadata.require_count("expert_used_count", limits::kMaxExperts));
  SHOAL_TRY(const auto groups, metadata.get_count("expert_group_count", limits::kMaxExperts));
  SHOAL_TRY(const auto used_groups, metadata.get_count("expert_group_used_count", limits::kMaxExperts));
  SHOAL_TRY(const uint32_t gating, metadata.get_whole("expert_gating_func", UINT32_MAX, 0));
  SHOAL_TRY(router.normalise, metadata.get_flag("expert_weights_norm", false));
  SHOAL_TRY(const double scale, metadata.get_number("expert_weights_scale", 0));
  if (gating > kSigmoid) return metadata.not_supported("expert_gating_func", fmt::format("{}", gating));
  router.score = gating == 0 ? absent_score : gating == kSoftmax ? Score::softmax : Score::sigmoid;
  router.group_score = router.score == Score::softmax ? engine::RouterOp::GroupScore::maximum
                                                      : engine::RouterOp::GroupScore::top_two_sum;
  router.group_count = groups.value_or(1);
  router.used_groups = used_groups.value_or(1);
  router.normalise_epsilon = 1e-20F;
  router.scale = scale == 0 ? 1 : static_cast<float>(scale);
  SHOAL_TRY_VOID(check_router(router, metadata.architecture()));
  return router;
}

}  // namespace shoal::model
