// CpuBackend: mixtures of experts.
//
// The order of a row's sum: its experts by ascending index, out = fma(expert's output, weight, out) from
// zero. So it does not matter in how many goes the experts of a step are computed.
#include <algorithm>
#include <cstring>

#include "base/assert.h"
#include "engine/cpu/cpu_backend_state.h"
#include "engine/cpu/expert_choice.h"
#include "engine/cpu/expert_plan.h"

namespace shoal::engine {
namespace {

constexpr uint64_t kScratchFloats = 16 << 20;  // of the rows at their experts that are computed in one go

}  // namespace

CpuTensor CpuBackend::gate_rows(Tensor x, Tensor gate) {
  SHOAL_ASSERT(gate.rows == x.rows && gate.columns == 1);
  state_->for_rows(x.rows, x.columns, [&](uint32_t first, uint32_t end) {
    for (uint32_t row = first; row < end; ++row)
      state_->kernels.gate_row(x.row(row), gate.data[row], x.columns);
  });
  return x;
}

CpuRouting CpuBackend::route(Tensor logits, const Weight* choice_bias, const RouterOp& op) {
  SHOAL_ASSERT(logits.columns == op.expert_count && op.used > 0 && op.used <= op.expert_count);
  SHOAL_ASSERT(op.group_count <= 1 ||
               (op.used_groups > 0 && op.expert_count % op.group_count == 0 &&
                uint64_t{op.used_groups} * (op.expert_count / op.group_count) >= op.used));
  SHOAL_ASSERT(choice_bias == nullptr || choice_bias->vector.size() == op.expert_count);
  Routing routing = {.used = op.used,
                     .experts = std::vector<uint32_t>(size_t{logits.rows} * op.used),
                     .weights = std::vector<float>(size_t{logits.rows} * op.used)};
  const Tensor scores = state_->allocate(logits.rows, logits.columns);
  auto score =
      op.score == RouterOp::Score::softmax ? state_->kernels.softmax_scores : state_->kernels.sigmoid_scores;
  const bool grouped = op.group_count > 1 && op.used_groups < op.group_count;
  // Scores rise with logits, and logits tell apart what scores round to the same value.
  const bool by_logits = !choice_bias && !(grouped && op.group_score == RouterOp::GroupScore::top_two_sum);
  state_->for_rows(logits.rows, logits.columns * 8, [&](uint32_t first, uint32_t end) {
    std::vector<float> biased(op.expert_count);
    for (uint32_t row = first; row < end; ++row) {
      const std::span<const float> given(logits.row(row), op.expert_count);
      const std::span<float> row_scores(scores.row(row), op.expert_count);
      score(given.data(), op.expert_count, row_scores.data());
      for (uint32_t expert = 0; expert < op.expert_count; ++expert) {
        if (given[expert] != given[expert]) row_scores[expert] = given[expert];  // exp() hides a NaN
        biased[expert] = row_scores[expert] + (choice_bias ? choice_bias->vector[expert] : 0.0f);
      }
      const std::span<uint32_t> chosen = std::span(routing.experts).subspan(size_t{row} * op.used, op.used);
      cpu::choose_experts(op, by_logits ? given : biased, chosen);
      cpu::weigh_experts(op, row_scores, chosen,
                         std::span(routing.weights).subspan(size_t{row} * op.used, op.used));
    }
  });
  return routing;
}

CpuTensor CpuBackend::experts(Tensor x, const Routing& routing, const ExpertWeights<Weight>& weights,
                              const Activation& activation) {
  const auto expert_count = static_cast<uint32_t>(weights.gate.stack.size());
  SHOAL_ASSERT(expert_count > 0 && weights.up.stack.size() == expert_count &&
               weights.down.stack.size() == expert_count);
  SHOAL_ASSERT(routing.experts.size() == size_t{x.rows} * routing.used &&
               routing.weights.size() == routing.experts.size());
  const uint32_t width = weights.gate.stack[0].rows(), columns = weights.down.stack[0].rows();
  const cpu::ExpertPlan plan(routing.experts, routing.used, {weights.first_expert, expert_count});
  const uint64_t limit = std::max<uint64_t>(64, kScratchFloats / (3 * uint64_t{width} + columns));
  Tensor result = state_->allocate(x.rows, columns);
  std::memset(result.data, 0, size_t{x.rows} * columns * sizeof(float));
  for (uint32_t first = 0; first < plan.slot_count();) {
    const auto parts = plan.parts(first, static_cast<uint32_t>(limit));
    const Tensor inner = state_->expert_inputs(x, plan, parts, weights, activation, *this);
    const Tensor outputs = state_->expert_outputs(inner, parts, weights);
    const uint32_t end = parts.back().end;
    state_->for_rows(x.rows, columns * routing.used, [&](uint32_t begin_row, uint32_t end_row) {
      for (uint32_t row = begin_row; row < end_row; ++row) {
        for (uint32_t i = 0; i < routing.used; ++i) {
          const uint32_t slot = plan.slots(row)[i];
          if (slot < first || slot >= end) continue;
          const float weight = routing.weights[size_t{row} * routing.used + plan.places(row)[i]];
          state_->kernels.add_scaled(outputs.row(slot - first), weight, columns, result.row(row));
        }
      }
    });
    first = end;
  }
  return result;
}

// Adds to the rows of each part its expert's row of `bias`, [experts, columns of `rows`].
void CpuBackend::State::add_expert_bias(const Tensor& rows, std::span<const cpu::ExpertPlan::Part> parts,
                                        const Weight& bias) {
  SHOAL_ASSERT(bias.vector.size() % rows.columns == 0 &&
               parts.back().expert < bias.vector.size() / rows.columns);
  const uint32_t first = parts.front().first;
  pool.run(static_cast<uint32_t>(parts.size()), [&](uint32_t index, unsigned) {
    const cpu::ExpertPlan::Part& part = parts[index];
    const float* values = bias.vector.data() + size_t{part.expert} * rows.columns;
    for (uint32_t slot = part.first; slot < part.end; ++slot)
      kernels.add(rows.row(slot - first), values, rows.columns, rows.row(slot - first));
  });
}

// act(gate(x), up(x)) for the slots of `parts`: [slots, F].
CpuTensor CpuBackend::State::expert_inputs(const Tensor& x, const cpu::ExpertPlan& plan,
                                           std::span<const cpu::ExpertPlan::Part> parts,
                                           const ExpertWeights<Weight>& weights, const Activation& activation,
                                           CpuBackend& backend) {
  const uint32_t first = parts.front().first, count = parts.back().end - first;
  const uint32_t width = weights.gate.stack[0].rows();
  const Tensor gate = allocate(count, width), up = allocate(count, width);
  std::vector<cpu::ProductJob> jobs;
  for (const cpu::ExpertPlan::Part& part : parts) {
    for (const auto& [weight, output] : {std::pair(&weights.gate, &gate), std::pair(&weights.up, &up)}) {
      const cpu::PackedMatrix& matrix = weight->stack[part.expert];
      SHOAL_ASSERT(matrix.rows() == width && matrix.columns() == x.columns);
      // A lone row by its address, so that the experts of a row share its preparation.
      const bool lone = part.end - part.first == 1;
      jobs.push_back({.matrix = &matrix,
                      .input = lone ? x.row(plan.rows()[part.first]) : x.data,
                      .input_stride = x.columns,
                      .input_rows = lone ? nullptr : plan.rows() + part.first,
                      .row_count = part.end - part.first,
                      .output = output->row(part.first - first),
                      .output_stride = width});
    }
  }
  product.run_jobs(jobs);
  if (weights.gate_bias) add_expert_bias(gate, parts, *weights.gate_bias);
  if (weights.up_bias) add_expert_bias(up, parts, *weights.up_bias);
  return backend.activate_multiply(gate, up, activation);
}

// down(inner) for the same slots: [slots, D].
CpuTensor CpuBackend::State::expert_outputs(const Tensor& inner, std::span<const cpu::ExpertPlan::Part> parts,
                                            const ExpertWeights<Weight>& weights) {
  const uint32_t first = parts.front().first, columns = weights.down.stack[0].rows();
  const Tensor outputs = allocate(inner.rows, columns);
  std::vector<cpu::ProductJob> jobs;
  for (const cpu::ExpertPlan::Part& part : parts) {
    const cpu::PackedMatrix& matrix = weights.down.stack[part.expert];
    SHOAL_ASSERT(matrix.rows() == columns && matrix.columns() == inner.columns);
    jobs.push_back({.matrix = &matrix,
                    .input = inner.row(part.first - first),
                    .input_stride = inner.columns,
                    .row_count = part.end - part.first,
                    .output = outputs.row(part.first - first),
                    .output_stride = columns});
  }
  product.run_jobs(jobs);
  if (weights.down_bias) add_expert_bias(outputs, parts, *weights.down_bias);
  return outputs;
}

}  // namespace shoal::engine
