#include "model/experts.h"

#include <fmt/format.h>

#include "base/limits.h"

namespace shoal::model {
namespace {

using formats::Checkpoint;

TensorRef stack_of(std::string name, uint64_t count, uint64_t rows, uint64_t columns) {
  TensorRef ref(std::move(name));
  ref.shape = {count, rows, columns};
  return ref;
}

// Gate and up out of one stack: the upper and the lower half of the rows of each matrix.
void split_gate_up(MixtureSpec& mixture, TensorRef stack, const Checkpoint& checkpoint) {
  const uint32_t width = mixture.width, experts = mixture.router_op.expert_count;
  stack.rows = {.first = 0, .length = width};
  mixture.gate = stack_parts(stack, experts, checkpoint);
  stack.rows.first = width;
  mixture.up = stack_parts(stack, experts, checkpoint);
}

// A tensor for each expert and projection. Ends with the first expert that the file lacks.
template <class Name>
void name_one_by_one(MixtureSpec& mixture, const Checkpoint& checkpoint, const Name& name_of,
                     const ExpertNames& names) {
  for (uint32_t expert = 0; expert < mixture.router_op.expert_count; ++expert) {
    mixture.gate.emplace_back(name_of(expert, names.gate));
    mixture.up.emplace_back(name_of(expert, names.up));
    mixture.down.emplace_back(name_of(expert, names.down));
    if (!checkpoint.find(mixture.gate.back().name)) return;
  }
}

}  // namespace

std::vector<TensorRef> stack_parts(const TensorRef& stack, uint32_t count, const Checkpoint& checkpoint) {
  const formats::TensorInfo* tensor = checkpoint.find(stack.name);
  const bool is_there = tensor && tensor->shape == stack.shape;
  std::vector<TensorRef> parts(is_there ? count : 1, stack);
  for (uint32_t index = 0; index < parts.size(); ++index) parts[index].index = index;
  return parts;
}

void name_experts(MixtureSpec& mixture, const std::string& prefix, uint32_t hidden_size,
                  const Checkpoint& checkpoint, const ExpertNames& names) {
  const uint32_t experts = mixture.router_op.expert_count, width = mixture.width;
  const auto stack = [&](const std::string& name, uint64_t rows, uint64_t columns) {
    return stack_parts(stack_of(name, experts, rows, columns), experts, checkpoint);
  };
  const std::string fused = prefix + "experts.gate_up_proj", stacked = prefix + "switch_mlp.";
  if (checkpoint.find(fused)) {
    split_gate_up(mixture, stack_of(fused, experts, uint64_t{2} * width, hidden_size), checkpoint);
    mixture.down = stack(prefix + "experts.down_proj", hidden_size, width);
  } else if (checkpoint.find(stacked + "gate_proj.weight")) {
    mixture.gate = stack(stacked + "gate_proj.weight", width, hidden_size);
    mixture.up = stack(stacked + "up_proj.weight", width, hidden_size);
    mixture.down = stack(stacked + "down_proj.weight", hidden_size, width);
  } else {
    name_one_by_one(
        mixture, checkpoint,
        [&](uint32_t expert, std::string_view projection) {
          return fmt::format("{}{}{}.{}.weight", prefix, names.list, expert, projection);
        },
        names);
  }
}

void name_gguf_experts(MixtureSpec& mixture, const std::string& prefix, uint32_t hidden_size,
                       const Checkpoint& checkpoint) {
  const uint32_t experts = mixture.router_op.expert_count, width = mixture.width;
  const auto stack = [&](std::string_view name, uint64_t rows, uint64_t columns) {
    return stack_parts(stack_of(fmt::format("{}{}", prefix, name), experts, rows, columns), experts,
                       checkpoint);
  };
  if (checkpoint.find(prefix + "ffn_gate.0.weight")) {
    name_one_by_one(mixture, checkpoint,
                    [&](uint32_t expert, std::string_view projection) {
                      return fmt::format("{}{}.{}.weight", prefix, projection, expert);
                    },
                    {.gate = "ffn_gate", .up = "ffn_up", .down = "ffn_down"});
    return;
  }
  const std::string fused = prefix + "ffn_gate_up_exps.weight";
  if (checkpoint.find(fused)) {
    split_gate_up(mixture, stack_of(fused, experts, uint64_t{2} * width, hidden_size), checkpoint);
  } else {
    mixture.gate = stack("ffn_gate_exps.weight", width, hidden_size);
    mixture.up = stack("ffn_up_exps.weight", width, hidden_size);
  }
  mixture.down = stack("ffn_down_exps.weight", hidden_size, width);
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
  SHOAL_TRY(const auto experts, fields.get_count("n_routed_experts", limits::kMaxExperts));
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
