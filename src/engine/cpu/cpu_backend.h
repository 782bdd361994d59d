// The CPU engine's ops (the Backend concept of engine/backend.h). A Tensor is a view of f32 rows in an arena
// that begin() empties; every op computes at once, on the thread pool when the work is worth waking it.
// Results do not depend on the thread count, on the other rows of a step, on how a sequence was cut into
// steps, or on the ISA. One thread drives a backend. Construction: CpuBackend::create(options); then load
// weights; then steps.
//
// A weight from load_embedding may stay mapped: the Checkpoint must outlive it. Token ids, page ids and
// positions are the caller's to check (asserted here).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "base/result.h"
#include "engine/backend.h"
#include "engine/cpu/arena.h"
#include "engine/cpu/file_matrix.h"
#include "engine/cpu/kernel_table.h"
#include "engine/cpu/packed_matrix.h"
#include "engine/engine.h"
#include "engine/rank_group.h"
#include "engine/step.h"
#include "engine/thread_share.h"
#include "formats/checkpoint.h"

namespace shoal::engine {

// [rows, columns] f32, row-major, in the backend's arena. Must not outlive the backend.
struct CpuTensor {
  float* data = nullptr;
  uint32_t rows = 0;
  uint32_t columns = 0;
  cpu::ArenaBlock memory;

  float* row(uint32_t index) const { return data + size_t{index} * columns; }
};

// A matrix packed for the kernels, an embedding in the file's form, or a vector; which one is known by who
// loaded it.
struct CpuWeight {
  cpu::PackedMatrix matrix;              // load_matrix: this rank's [rows, columns]
  std::vector<cpu::PackedMatrix> stack;  // load_stack: matrices of one shape
  cpu::FileMatrix embedding;             // load_embedding: mapped, in the file's form
  std::vector<float> vector;             // load_vector: [n]
};

// What one layer of the stage remembers: keys and values of this rank's heads, or one latent row per token,
// or a recurrent state per sequence.
struct KvLayerShape {
  uint32_t kv_heads = 0;
  uint32_t head_dim = 0;
  uint32_t latent_rank = 0;  // latent and rotated values of a token, see LatentAttentionOp
  uint32_t latent_rope = 0;
  uint64_t state_floats = 0;  // of a sequence, see DeltaNetOp
};

// Which experts serve each row, best first, and with what weight: [rows, used].
struct CpuRouting {
  uint32_t used = 0;
  std::vector<uint32_t> experts;
  std::vector<float> weights;
};

struct CpuBackendOptions {
  unsigned thread_count = 0;         // 0: all usable cores
  std::optional<cpu::Isa> isa = {};  // nullopt: the fastest here
  KvConfig kv = {};  // page_tokens is a multiple of 16; page_count 0: a stage without attention
  std::vector<KvLayerShape> kv_layers = {};  // AttentionOp.layer indexes it
  RankGroup* ranks = nullptr;        // of the stage; none: this rank is alone. Must outlive the backend
  std::vector<unsigned> cores = {};  // thread t stays on cores[t], if there is one
  std::function<ThreadShare()> thread_share = {};  // asked at every begin(); none: always all threads
};

class CpuBackend {
 public:
  using Tensor = CpuTensor;
  using Weight = CpuWeight;
  using Routing = CpuRouting;

  // Errors: unsupported (isa, KV type, page size), out_of_memory (the KV cache).
  static Result<CpuBackend> create(CpuBackendOptions options);
  CpuBackend(CpuBackend&&) noexcept;
  CpuBackend& operator=(CpuBackend&&) noexcept;
  ~CpuBackend();

  // [rows, columns] of any type, or the source's part of it: a part whose columns cut through blocks of the
  // type becomes f32. Drops the file's pages. Errors: unsupported (a size or a way of taking it apart that
  // does not go with its type, a part that is not in it), malformed (a NaN where the type has none to compute
  // with), out_of_memory.
  Result<Weight> load_matrix(const formats::Checkpoint& checkpoint, const MatrixSource& source);
  // The same part of all.
  Result<Weight> load_stack(const formats::Checkpoint& checkpoint, std::span<const MatrixSource> sources);
  Result<Weight> load_embedding(const formats::Checkpoint& checkpoint, const formats::TensorInfo& info);
  // The sources one after the other, as f32.
  Result<Weight> load_vector(const formats::Checkpoint& checkpoint, std::span<const VectorSource> sources);

  void begin(const StepView& step);
  Tensor embed(const Weight& embedding, const StepView& step);
  Tensor input(const StepView& step, std::span<const float> hidden);
  Tensor rms_norm(Tensor x, const Weight& weight, float epsilon);
  std::pair<Tensor, Tensor> add_rms_norm(Tensor a, Tensor b, const Weight& weight, float epsilon);
  Tensor linear(Tensor x, const Weight& weight);
  std::vector<Tensor> linears(Tensor x, std::span<const Weight* const> weights);
  Tensor head_linear(Tensor x, const Weight& stack);
  Tensor head_columns(Tensor x, uint32_t head_size, uint32_t first, uint32_t count);
  Tensor add_bias(Tensor x, const Weight& bias);                                        // in place
  Tensor head_norm(Tensor x, const Weight& weight, uint32_t head_size, float epsilon);  // in place
  Tensor rope(Tensor x, const StepView& step, const RopeOp& op, uint32_t head_size);    // in place
  Tensor attend(Tensor queries, Tensor keys, Tensor values, const StepView& step, const AttentionOp& op,
                const Weight* sinks);
  Tensor attend_latent(Tensor queries, Tensor rotated_queries, Tensor latent, Tensor rotated,
                       const StepView& step, const LatentAttentionOp& op);
  Tensor delta_net(Tensor queries, Tensor keys, Tensor values, Tensor decay_input, Tensor rate_input,
                   const Weight& taps, const Weight& decay_bias, const Weight& decay, const StepView& step,
                   const DeltaNetOp& op);
  Tensor activate_multiply(Tensor gate, Tensor up, const Activation& activation);
  Tensor gate_rows(Tensor x, Tensor gate);  // in place
  Routing route(Tensor logits, const Weight* choice_bias, const RouterOp& op);
  Tensor experts(Tensor x, const Routing& routing, const ExpertWeights<Weight>& weights,
                 const Activation& activation);
  Tensor add(Tensor a, Tensor b);
  Tensor scale(Tensor x, float factor);  // in place
  Tensor softcap(Tensor x, float cap);   // in place
  Tensor zeros(Tensor x);
  Tensor all_reduce(Tensor x);  // in place
  Tensor all_gather(Tensor x, std::span<const uint32_t> counts);
  bool failed() const;
  Tensor rows(Tensor x, std::span<const uint32_t> indices);
  // The tensor's values, valid until the next begin(). Error: the group's, if ranks did not come together in
  // this step; the values would be worth nothing.
  Result<std::span<const float>> output(Tensor x);

  void copy_page(uint32_t from, uint32_t to);
  EngineMemory memory() const;
  const KvConfig& kv() const;
  unsigned thread_count() const;
  cpu::Isa isa() const;

  // Bytes of KV cache a page takes with these layers; unsupported or invalid shapes are an Error.
  static Result<uint64_t> page_bytes(const KvConfig& kv, std::span<const KvLayerShape> layers);

 private:
  struct State;
  explicit CpuBackend(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace shoal::engine
