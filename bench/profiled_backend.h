// A CpuBackend that notes how long each op takes: the decoder is a template over its backend and runs on this
// one unchanged, so that profiling costs nothing where it is not asked for. Ops that are not named here run
// as they are and count as time between ops.
#pragma once

#include <utility>
#include <vector>

#include "engine/cpu/cpu_backend.h"
#include "figures.h"

namespace shoal::bench {

struct OpTime {
  const char* name;
  Times times;
  double bytes = 0;       // of packed weights that the op reads
  double operations = 0;  // of its products; a multiply-add is two
};

class ProfiledBackend : public engine::CpuBackend {
  template <class Op>
  auto timed(const char* name, Op op) {
    const double start = seconds(), processor_start = processor_seconds();
    auto result = op();
    ops_.push_back({name, {seconds() - start, processor_seconds() - processor_start}});
    return result;
  }

  void add_work(const engine::cpu::PackedMatrix& matrix, uint32_t rows) {
    ops_.back().bytes += static_cast<double>(matrix.bytes());
    ops_.back().operations += 2.0 * matrix.rows() * matrix.columns() * rows;
  }

 public:
  using Base = engine::CpuBackend;
  explicit ProfiledBackend(Base base) : Base(std::move(base)) {}

  void begin(const engine::StepView& step) {
    ops_.clear();
    Base::begin(step);
  }
  const std::vector<OpTime>& ops() const { return ops_; }  // of the last step, in order

  Tensor embed(const Weight& w, const engine::StepView& step) {
    return timed("embed", [&] { return Base::embed(w, step); });
  }
  Tensor rms_norm(const Tensor& x, const Weight& w, float epsilon) {
    return timed("rms_norm", [&] { return Base::rms_norm(x, w, epsilon); });
  }
  std::pair<Tensor, Tensor> add_rms_norm(const Tensor& a, const Tensor& b, const Weight& w, float epsilon) {
    return timed("add_rms_norm", [&] { return Base::add_rms_norm(a, b, w, epsilon); });
  }
  Tensor linear(const Tensor& x, const Weight& w) {
    Tensor result = timed("linear", [&] { return Base::linear(x, w); });
    add_work(w.matrix, x.rows);
    return result;
  }
  std::vector<Tensor> linears(const Tensor& x, std::span<const Weight* const> ws) {
    std::vector<Tensor> result = timed("linears", [&] { return Base::linears(x, ws); });
    for (const Weight* w : ws) add_work(w->matrix, x.rows);
    return result;
  }
  Tensor head_linear(const Tensor& x, const Weight& w) {
    Tensor result = timed("head_linear", [&] { return Base::head_linear(x, w); });
    for (const engine::cpu::PackedMatrix& matrix : w.stack) add_work(matrix, x.rows);
    return result;
  }
  Tensor head_columns(const Tensor& x, uint32_t size, uint32_t first, uint32_t count) {
    return timed("head_columns", [&] { return Base::head_columns(x, size, first, count); });
  }
  Tensor add_bias(const Tensor& x, const Weight& w) {
    return timed("add_bias", [&] { return Base::add_bias(x, w); });
  }
  Tensor head_norm(const Tensor& x, const Weight& w, uint32_t size, float epsilon) {
    return timed("head_norm", [&] { return Base::head_norm(x, w, size, epsilon); });
  }
  Tensor rope(const Tensor& x, const engine::StepView& step, const engine::RopeOp& op, uint32_t size) {
    return timed("rope", [&] { return Base::rope(x, step, op, size); });
  }
  Tensor attend(const Tensor& q, const Tensor& k, const Tensor& v, const engine::StepView& step,
                const engine::AttentionOp& op, const Weight* sinks) {
    return timed("attend", [&] { return Base::attend(q, k, v, step, op, sinks); });
  }
  Tensor attend_latent(const Tensor& q, const Tensor& rotated_q, const Tensor& latent, const Tensor& rotated,
                       const engine::StepView& step, const engine::LatentAttentionOp& op) {
    return timed("attend_latent",
                 [&] { return Base::attend_latent(q, rotated_q, latent, rotated, step, op); });
  }
  Tensor delta_net(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& a, const Tensor& b,
                   const Weight& taps, const Weight& bias, const Weight& decay, const engine::StepView& step,
                   const engine::DeltaNetOp& op) {
    return timed("delta_net", [&] { return Base::delta_net(q, k, v, a, b, taps, bias, decay, step, op); });
  }
  Tensor activate_multiply(const Tensor& gate, const Tensor& up, const engine::Activation& activation) {
    return timed("activate_multiply", [&] { return Base::activate_multiply(gate, up, activation); });
  }
  Routing route(const Tensor& logits, const Weight* bias, const engine::RouterOp& op) {
    return timed("route", [&] { return Base::route(logits, bias, op); });
  }
  Tensor experts(const Tensor& x, const Routing& routing, const engine::ExpertWeights<Weight>& weights,
                 const engine::Activation& activation);
  Tensor add(const Tensor& a, const Tensor& b) {
    return timed("add", [&] { return Base::add(a, b); });
  }
  Tensor rows(const Tensor& x, std::span<const uint32_t> indices) {
    return timed("rows", [&] { return Base::rows(x, indices); });
  }

 private:
  std::vector<OpTime> ops_;
};

}  // namespace shoal::bench
