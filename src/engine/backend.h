// The op vocabulary of decoder models. The model code (model/decoder.h) is a template over this concept; each engine
// chooses its own Tensor, Weight and Kv. On the CPU a Tensor is a view into an arena and an op runs at once; on MLX a
// Tensor is a node of a lazy graph. `output` is the only synchronisation.
//
// Shapes: T = rows of the step, D = hidden size, H = query heads, G = kv heads, d = head size, F = feed-forward width.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "engine/step.h"
#include "formats/checkpoint.h"

namespace shoal::engine {

enum class Activation : uint8_t { silu, gelu_tanh };

// How a matrix is divided over the ranks of a tensor-parallel stage: `rows` for QKV, gate and up (outputs are split),
// `columns` for the output and down projections (inputs are split, an all_reduce follows), `none` for the whole.
enum class Cut : uint8_t { none, rows, columns };

enum class RopePairs : uint8_t { halves, interleaved };  // (i, i + d/2) or (2i, 2i + 1)

// inverse_frequencies [dimensions / 2]: angle of pair p at position t is t * inverse_frequencies[p].
struct RopeOp {
  RopePairs pairs = RopePairs::halves;
  uint32_t dimensions = 0;
  float magnitude = 1;  // multiplies cos and sin (yarn, longrope)
  std::span<const float> inverse_frequencies;
};

struct AttentionOp {
  uint32_t layer = 0;       // index within this stage's KV
  uint32_t query_heads = 0;
  uint32_t kv_heads = 0;
  uint32_t head_dim = 0;
  float scale = 1;
  uint32_t window = 0;      // 0: all; else position i sees j with i - window < j <= i
};

template <class B>
concept Backend = requires(B b, typename B::Tensor x, const typename B::Weight& w, const StepView& step,
                           const RopeOp& rope, const AttentionOp& attention, Activation activation,
                           std::span<const typename B::Weight* const> ws, std::span<const float> hidden, uint32_t n,
                           float epsilon, const formats::Checkpoint& checkpoint, const formats::TensorInfo& info,
                           Cut cut) {
  { b.load_matrix(checkpoint, info, cut) } -> std::same_as<Result<typename B::Weight>>;   // [rows, columns], any type
  { b.load_embedding(checkpoint, info) } -> std::same_as<Result<typename B::Weight>>;     // [V, D], for embed()
  { b.load_vector(checkpoint, info) } -> std::same_as<Result<typename B::Weight>>;        // [n], becomes f32

  b.begin(step);                                                                          // frees the last step's tensors
  { b.embed(w, step) } -> std::same_as<typename B::Tensor>;                               // [T, D]
  { b.input(step, hidden) } -> std::same_as<typename B::Tensor>;                          // [T, D] from the stage before
  { b.rms_norm(x, w, epsilon) } -> std::same_as<typename B::Tensor>;
  { b.add_rms_norm(x, x, w, epsilon) } -> std::same_as<std::pair<typename B::Tensor, typename B::Tensor>>;  // (sum, normed sum)
  { b.linear(x, w) } -> std::same_as<typename B::Tensor>;                                 // x @ wᵀ
  { b.linears(x, ws) } -> std::same_as<std::vector<typename B::Tensor>>;                  // several, x prepared once
  { b.add_bias(x, w) } -> std::same_as<typename B::Tensor>;
  { b.head_norm(x, w, n, epsilon) } -> std::same_as<typename B::Tensor>;                  // rms_norm of each head of size n
  { b.rope(x, step, rope, n) } -> std::same_as<typename B::Tensor>;                       // heads of size n
  { b.attend(x, x, x, step, attention) } -> std::same_as<typename B::Tensor>;             // appends k, v; causal; [T, H*d]
  { b.activate_multiply(x, x, activation) } -> std::same_as<typename B::Tensor>;          // act(gate) * up
  { b.add(x, x) } -> std::same_as<typename B::Tensor>;
  { b.all_reduce(x) } -> std::same_as<typename B::Tensor>;                                // the same tensor for one rank
  { b.rows(x, step.output_rows) } -> std::same_as<typename B::Tensor>;
  { b.output(x) } -> std::same_as<Result<std::span<const float>>>;
};

}  // namespace shoal::engine
