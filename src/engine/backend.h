// The op vocabulary of decoder models. The model code (model/decoder.h, model/layers/) is a template over this concept;
// each engine chooses its own Tensor, Weight and Routing. On the CPU a Tensor is a view into an arena and an op runs at
// once; on MLX a Tensor is a node of a lazy graph. `output` is the only synchronisation.
//
// Shapes: T = rows of the step, D = hidden size, H = query heads, G = kv heads, d = head size, F = feed-forward width,
// E = experts, R = rank of the latent, r = rotated values beside it.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "engine/source.h"
#include "engine/step.h"
#include "formats/checkpoint.h"

namespace shoal::engine {

// What meets `up` in act(gate) * up. clamped_swiglu (gpt-oss): g = min(gate, limit), u = clamp(up, -limit, limit);
// g * sigmoid(alpha * g) * (u + 1).
struct Activation {
  enum class Kind : uint8_t { silu, gelu_tanh, sigmoid, clamped_swiglu };
  Kind kind = Kind::silu;
  float alpha = 0;
  float limit = 0;
};

enum class RopePairs : uint8_t { halves, interleaved };  // (i, i + d/2) or (2i, 2i + 1)

// inverse_frequencies [dimensions / 2]: angle of pair p at position t is t * inverse_frequencies[p]. Sequences whose
// prompt is longer than `long_after_tokens` use long_inverse_frequencies instead (longrope), when there are any.
struct RopeOp {
  RopePairs pairs = RopePairs::halves;
  uint32_t dimensions = 0;
  float magnitude = 1;  // multiplies cos and sin (yarn, longrope)
  std::span<const float> inverse_frequencies;
  std::span<const float> long_inverse_frequencies = {};
  uint32_t long_after_tokens = 0;
};

struct AttentionOp {
  uint32_t layer = 0;       // index within this stage's KV
  uint32_t query_heads = 0;
  uint32_t kv_heads = 0;
  uint32_t head_dim = 0;
  float scale = 1;
  uint32_t window = 0;      // 0: all; else position i sees j with i - window < j <= i
  float softcap = 0;        // 0: none; else score = softcap * tanh(score / softcap), before the softmax
  // Query heads of a kv head, in order; 0: query_heads / kv_heads. A rank may hold only the last ones of its first kv
  // head, those after `skipped_heads`, and only the first ones of its last.
  uint32_t group_heads = 0;
  uint32_t skipped_heads = 0;

  uint32_t group() const { return group_heads != 0 ? group_heads : query_heads / kv_heads; }
};

// Multi-head latent attention with the key projection absorbed into the queries (DeepSeek-V2,
// https://arxiv.org/abs/2405.04434): all heads share one cached row [latent R | rotated r] per token; score = scale *
// (q . latent + q_rotated . rotated); the result of a head is the weighted sum of latents.
struct LatentAttentionOp {
  uint32_t layer = 0;
  uint32_t query_heads = 0;
  uint32_t latent_rank = 0;  // R
  uint32_t rope_dim = 0;     // r
  float scale = 1;
};

// Which experts serve a row and with what weight. Ties go to the lower index.
struct RouterOp {
  enum class Score : uint8_t { softmax, sigmoid };
  enum class GroupScore : uint8_t { maximum, top_two_sum };
  Score score = Score::softmax;  // of the logits, over all experts
  uint32_t expert_count = 0;
  uint32_t used = 0;             // experts a row
  uint32_t group_count = 1;      // experts in equal groups, of which the best `used_groups` may serve
  uint32_t used_groups = 1;
  GroupScore group_score = GroupScore::maximum;
  bool normalise = false;        // the chosen scores are divided by their sum (+ normalise_epsilon)
  float normalise_epsilon = 0;
  float scale = 1;               // of the weights, at the end
};

// The gated delta rule (https://arxiv.org/abs/2412.06464) behind a short causal convolution, as Qwen3-Next has it.
// Per sequence and layer it keeps a state of convolution_values() + state_values() floats in the step's state slot.
struct DeltaNetOp {
  uint32_t layer = 0;
  uint32_t key_heads = 0;
  uint32_t value_heads = 0;      // a multiple of key_heads, or, of a tiled net, those of one rank
  uint32_t key_dim = 0;
  uint32_t value_dim = 0;
  uint32_t kernel = 0;           // taps of the convolution
  bool tiled = false;            // value head h goes with key head h % key_heads, else h / (value_heads / key_heads)
  uint32_t skipped_heads = 0;    // of a tiled net: value heads that are on ranks before

  uint32_t channels() const { return 2 * key_heads * key_dim + value_heads * value_dim; }
};

// The feed-forward weights of a layer's experts: stacks of E [F, D], [F, D] and [D, F]; biases [E * F] and [E * D]. They
// are those from first_expert on; what rows want of others, other ranks add.
template <class Weight>
struct ExpertWeights {
  Weight gate, up, down;
  std::optional<Weight> gate_bias, up_bias, down_bias;
  uint32_t first_expert = 0;
};

template <class B>
concept Backend = requires(B b, typename B::Tensor x, const typename B::Weight& w, const typename B::Weight* optional,
                           const StepView& step, const RopeOp& rope, const AttentionOp& attention,
                           const LatentAttentionOp& latent, const RouterOp& router, const DeltaNetOp& delta,
                           const typename B::Routing& routing, const ExpertWeights<typename B::Weight>& experts,
                           const Activation& activation, std::span<const typename B::Weight* const> ws,
                           std::span<const float> hidden, uint32_t n, float epsilon,
                           const formats::Checkpoint& checkpoint, const formats::TensorInfo& info,
                           const MatrixSource& matrix, std::span<const MatrixSource> matrices,
                           std::span<const VectorSource> vectors, std::span<const uint32_t> counts) {
  // A matrix of any type; `vectors` one after the other as one vector of f32; a stack of matrices of one shape.
  { b.load_matrix(checkpoint, matrix) } -> std::same_as<Result<typename B::Weight>>;
  { b.load_vector(checkpoint, vectors) } -> std::same_as<Result<typename B::Weight>>;
  { b.load_stack(checkpoint, matrices) } -> std::same_as<Result<typename B::Weight>>;
  { b.load_embedding(checkpoint, info) } -> std::same_as<Result<typename B::Weight>>;     // [V, D], for embed()

  b.begin(step);                                                                          // frees the last step's tensors
  { b.embed(w, step) } -> std::same_as<typename B::Tensor>;                               // [T, D]
  { b.input(step, hidden) } -> std::same_as<typename B::Tensor>;                          // [T, D] from the stage before
  { b.rms_norm(x, w, epsilon) } -> std::same_as<typename B::Tensor>;
  { b.add_rms_norm(x, x, w, epsilon) } -> std::same_as<std::pair<typename B::Tensor, typename B::Tensor>>;  // (sum, normed sum)
  { b.linear(x, w) } -> std::same_as<typename B::Tensor>;                                 // x @ wᵀ
  { b.linears(x, ws) } -> std::same_as<std::vector<typename B::Tensor>>;                  // several, x prepared once
  { b.head_linear(x, w) } -> std::same_as<typename B::Tensor>;                            // [T, H*a] by a stack of H [b, a]: [T, H*b]
  { b.add_bias(x, w) } -> std::same_as<typename B::Tensor>;
  { b.head_norm(x, w, n, epsilon) } -> std::same_as<typename B::Tensor>;                  // rms_norm of each head of size n
  { b.head_columns(x, n, n, n) } -> std::same_as<typename B::Tensor>;                     // of heads of size n: [first, first + count) of each
  { b.rope(x, step, rope, n) } -> std::same_as<typename B::Tensor>;                       // heads of size n; the first rope.dimensions of each
  { b.attend(x, x, x, step, attention, optional) } -> std::same_as<typename B::Tensor>;   // appends k, v; causal; sinks [H] or null; [T, H*d]
  { b.attend_latent(x, x, x, x, step, latent) } -> std::same_as<typename B::Tensor>;      // q [T, H*R], q rotated [T, H*r], latent [T, R], rotated [T, r]; [T, H*R]
  { b.delta_net(x, x, x, x, x, w, w, w, step, delta) } -> std::same_as<typename B::Tensor>;  // q, k, v before the convolution, a [T, V], b [T, V]; taps [channels, kernel], dt bias [V], decay [V]
  { b.activate_multiply(x, x, activation) } -> std::same_as<typename B::Tensor>;          // act(gate) * up
  { b.gate_rows(x, x) } -> std::same_as<typename B::Tensor>;                              // x * sigmoid(gate), gate [T, 1]
  { b.route(x, optional, router) } -> std::same_as<typename B::Routing>;                  // logits [T, E]; a bias [E] that chooses only, or null
  { b.experts(x, routing, experts, activation) } -> std::same_as<typename B::Tensor>;     // weighted sum over each row's experts
  { b.add(x, x) } -> std::same_as<typename B::Tensor>;
  { b.scale(x, epsilon) } -> std::same_as<typename B::Tensor>;
  { b.softcap(x, epsilon) } -> std::same_as<typename B::Tensor>;                          // cap * tanh(x / cap)
  { b.zeros(x) } -> std::same_as<typename B::Tensor>;                                     // as many as x
  { b.all_reduce(x) } -> std::same_as<typename B::Tensor>;                                // the sum over ranks (rank_group.h); x for one rank
  { b.all_gather(x, counts) } -> std::same_as<typename B::Tensor>;                        // [T, counts[rank]] each: [T, sum of counts]
  { b.failed() } -> std::same_as<bool>;                                                   // a rank is known to be lost: output() will say so
  { b.rows(x, step.output_rows) } -> std::same_as<typename B::Tensor>;
  { b.output(x) } -> std::same_as<Result<std::span<const float>>>;
};

}  // namespace shoal::engine
