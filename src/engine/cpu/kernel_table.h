// The function table between the CPU engine and its kernels, one table per instruction set. Kernel units are
// compiled for their instruction set, so this header must stay free of standard library headers: an inline
// function compiled for AVX-512 must never be the copy the linker keeps for everybody. All tables compute the
// same bits.
//
// Prepared activations: rows are grouped in tiles of `tile_rows` (the last tile has what is left, R rows),
// and inside a tile the R rows are interleaved word by word, so that one base pointer and constant
// displacements reach them all.
//   f32:     [columns][R] f32
//   q8_32:   per block of 32: words [8][R] (4 int8 each), scale [R] f32,
//            bias [R] i32 = -128 * sum of the int8, total [R] f32 = scale * sum of the int8
//   q8_256:  per block of 256: words [64][R], scale [R] f32, bias [16][R] i32 = -32 * sum of each 16,
//            pair_sums [4][R]: two int16, the sums of values 64p .. 64p+31 (low half) and
//            64p+32 .. 64p+63 (high half),
//            sixteen_sums [8][R]: two int16, the sums of values 32p .. 32p+15 and 32p+16 .. 32p+31
// Packed matrices: panels of 16 rows, see packed_matrix.h.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace shoal::engine::cpu {

enum class Isa : uint8_t { portable, avx2, avx512, amx, neon };

enum class ActivationFormat : uint8_t { f32, q8_32, q8_256 };
constexpr size_t kActivationFormatCount = 3;

// What a panel of weights looks like (packed_matrix.h); affine with the type of its scales.
enum class PanelType : uint8_t {
  f32,
  f16,
  bf16,
  f8,
  mxfp4,
  q8_0,
  q4_0,
  q5_0,
  iq4_nl,
  affine4_f16,
  affine4_bf16,
  affine4_f32,
  affine5_f16,
  affine8_f16,
  affine8_bf16,
  affine8_f32,
  q2_k,
  q3_k,
  q4_k,
  q5_k,
  q6_k,
  iq4_xs,
};
constexpr size_t kPanelTypeCount = 22;

constexpr uint32_t kPanelRows = 16;          // outputs of a panel, one 32-bit lane each
constexpr uint32_t kMaxTileRows = 16;        // activation rows computed together
constexpr uint32_t kAttentionQueries = 8;    // query vectors computed together
constexpr uint32_t kAttentionRun = 64;       // tokens of a softmax run; runs start at multiples of it
constexpr uint32_t kAttentionSpan = 512;     // tokens that are softened by themselves, then folded in order
constexpr uint32_t kLatentQueries = 16;      // query vectors computed together over latent rows, a lane each
constexpr uint32_t kMaxLatentValues = 4096;  // latent and rotated values of a token
constexpr uint32_t kCacheBlock = 32;         // values of a q8 cache that share a scale
constexpr uint32_t kMaxTaps = 256;           // of a short convolution
constexpr uint32_t kDeltaColumns = 64;       // columns of a delta-rule state computed together

// Bytes a row takes in prepared activations; `columns` is whole blocks.
constexpr size_t prepared_row_bytes(ActivationFormat format, size_t columns) {
  switch (format) {
    case ActivationFormat::f32:
      return columns * 4;
    case ActivationFormat::q8_32:
      return columns / 32 * 44;
    case ActivationFormat::q8_256:
      return columns / 256 * 372;
  }
  return 0;
}

// output[t * output_stride + n] = sum over k of activation[t][k] * weight[n][k], for the outputs n of panels
// [first_panel, end_panel) that are < output_rows and all `row_count` rows of `activations` (which starts a
// tile).
struct MatrixTask {
  const uint8_t* panels;
  size_t panel_bytes;
  uint32_t first_panel;
  uint32_t end_panel;
  uint32_t output_rows;
  uint32_t columns;
  uint32_t group_columns;  // neighbours of a row that share a scale, of affine and f8
  const uint8_t* activations;
  uint32_t row_count;
  float* output;
  size_t output_stride;
};

// Up to kAttentionQueries query vectors that share a kv head and a sequence, over tokens of one span of
// kAttentionSpan. Query q takes tokens [begin[q], end[q]), which may be empty; of those that are not,
// states[q] becomes what it knows after the span. Token t is in page pages[t / page_tokens]; a page holds, at
// key_offset, keys as [page_tokens / 16][head_dim][16 tokens] and, at value_offset, values as
// [page_tokens][value_stride] with value_stride = head_dim rounded up to 16.
struct AttentionTask {
  uint32_t query_count;
  const float* queries;              // [head_dim][query_count]
  float* states[kAttentionQueries];  // attention_state_floats(head_dim) each
  uint32_t begin[kAttentionQueries];
  uint32_t end[kAttentionQueries];
  uint32_t cached_tokens;  // of the sequence; up to there it is worth fetching ahead
  const uint8_t* cache;
  size_t page_bytes;
  const uint32_t* pages;
  uint32_t page_tokens;
  size_t key_offset;
  size_t value_offset;
  size_t key_scale_offset;  // q8: scales as [page_tokens / 16][blocks of head_dim][16 tokens] f16
  size_t value_scale_offset;
  uint32_t head_dim;
  float scale;
  float softcap;  // 0: none
  bool has_sink[kAttentionQueries];
  float sinks[kAttentionQueries];  // one more score of the query, which weighs nothing but the sum
  float* scratch;                  // attention_scratch_floats(head_dim)
};
constexpr size_t cache_blocks(size_t values) {
  return (values + kCacheBlock - 1) / kCacheBlock;
}
constexpr size_t attention_scratch_floats(size_t head_dim) {
  return kAttentionQueries * (1 + cache_blocks(head_dim)) * kAttentionRun;
}
// What a query vector knows of some tokens: 16 sums of weights, outputs [head_dim rounded up to 16] before
// they are divided by them, and the largest score.
constexpr size_t attention_state_floats(size_t head_dim) {
  return 32 + (head_dim + 15) / 16 * 16;
}

// Up to kLatentQueries query vectors (rows and heads of one sequence, row after row) over latent rows, over
// tokens [begin, end) of one span of kAttentionSpan. Query q sees tokens [0, end_visible[q]); end_visible
// does not fall, and the last query sees `begin`. A page holds, at rows_offset, [page_tokens] rows of
// row_bytes: for q8 a scale per kCacheBlock of the values, then latent_rank latent and rope_dim rotated
// values, rounded up to 16 (q8: and 32 bytes at least).
struct LatentTask {
  uint32_t query_count;
  uint32_t end_visible[kLatentQueries];
  uint32_t begin;
  uint32_t end;
  const float* queries;    // [latent_rank + rope_dim][16]: a query per lane, the lanes without one 0
  float* state;            // latent_state(latent_rank).floats: what the queries know after the span
  uint32_t cached_tokens;  // of the sequence; up to there it is worth fetching ahead
  const uint8_t* cache;
  size_t page_bytes;
  const uint32_t* pages;
  uint32_t page_tokens;
  size_t rows_offset;
  uint32_t row_bytes;
  uint32_t latent_rank;
  uint32_t rope_dim;
  float scale;
};
// 16 sums of weights of each lane, the lanes' largest scores, outputs [16][columns] before they are divided.
struct LatentStateLayout {  // in floats
  size_t maxima, outputs, columns, floats;
};
constexpr LatentStateLayout latent_state(uint32_t latent_rank) {
  const size_t columns = (size_t{latent_rank} + 15) / 16 * 16;
  return {.maxima = 256, .outputs = 272, .columns = columns, .floats = 272 + kLatentQueries * columns};
}

// A causal depthwise convolution and silu over rows of one sequence. Channel c of output row t is silu of the
// sum over i < taps of weights[c * taps + i] * row[t + i], where the rows are history [taps - 1] followed by
// input [row_count]; the last taps - 1 of them become the history. Rows lie `stride` floats apart.
struct ConvolutionTask {
  const float* input;
  size_t input_stride;
  float* history;
  size_t history_stride;
  const float* weights;
  uint32_t taps;  // <= kMaxTaps
  uint32_t channels;
  uint32_t row_count;
  float* output;
  size_t output_stride;
};

// decay = exp(factor * softplus(input + bias)), rate = sigmoid(input), for the heads of one row.
struct DeltaGatesTask {
  uint32_t heads;
  const float* decay_input;
  const float* decay_bias;
  const float* decay_factor;
  const float* rate_input;
  float* decay;
  float* rate;
};

// The gated delta rule for some columns of one head's state S [key_dim, columns], over rows of one sequence:
// S = decay * S; S = S + key (rate * (value - Sᵀ key))ᵀ; output = Sᵀ query.
struct DeltaTask {
  float* state;
  uint32_t key_dim;
  uint32_t columns;      // <= kDeltaColumns
  const float* queries;  // [row_count, key_dim]
  const float* keys;
  const float* values;  // [row_count, columns], rows `value_stride` floats apart
  size_t value_stride;
  const float* decay;  // [row_count], `gate_stride` floats apart, as rate
  const float* rate;
  size_t gate_stride;
  uint32_t row_count;
  float* output;  // [row_count, columns]
  size_t output_stride;
};

struct Kernels {
  Isa isa;
  uint32_t tile_rows;  // <= kMaxTileRows

  using Multiply = void (*)(const MatrixTask&);
  Multiply multiply[kPanelTypeCount];  // by PanelType

  // Fills one tile from `row_count` <= tile_rows rows of f32.
  using Prepare = void (*)(const float* const* rows, uint32_t row_count, uint32_t columns, uint8_t* tile);
  Prepare prepare[kActivationFormatCount];  // by ActivationFormat

  // output = input / sqrt(mean(input^2) + epsilon) * weight
  void (*rms_norm)(const float* input, const float* weight, uint32_t size, float epsilon, float* output);
  void (*add)(const float* a, const float* b, size_t size, float* output);
  void (*silu_multiply)(const float* gate, const float* up, size_t size, float* output);
  void (*gelu_tanh_multiply)(const float* gate, const float* up, size_t size, float* output);
  void (*sigmoid_multiply)(const float* gate, const float* up, size_t size, float* output);
  void (*clamped_swiglu)(const float* gate, const float* up, float alpha, float limit, size_t size,
                         float* output);  // see Activation
  void (*scale)(const float* input, float factor, size_t size, float* output);
  void (*softcap)(const float* input, float cap, size_t size, float* output);  // cap * tanh(input / cap)
  void (*exponential)(const float* input, size_t size,
                      float* output);  // exp, see sixteen_lanes/elementwise.h
  // Rotates the first 2 * pairs values of one head in place.
  void (*rope_halves)(float* head, const float* cosines, const float* sines, uint32_t pairs);
  void (*rope_interleaved)(float* head, const float* cosines, const float* sines, uint32_t pairs);
  void (*to_f16)(const float* input, size_t size, uint16_t* output);  // nearest even
  // int8 and one f16 scale per kCacheBlock, see sixteen_lanes/cache.h
  void (*to_q8)(const float* input, size_t size, int8_t* output, uint16_t* scales);

  using Attend = void (*)(const AttentionTask&);
  Attend attend_f32, attend_f16, attend_q8;
  void (*attention_fold)(const float* part, uint32_t head_dim,
                         float* state);  // the next span into those before
  void (*attention_finish)(const float* state, uint32_t head_dim, float* output);

  using AttendLatent = void (*)(const LatentTask&);
  AttendLatent latent_f32, latent_f16, latent_q8;
  // The part of the task's span, [begin, end), into those before it; outputs of query q to outputs[q].
  void (*latent_fold)(const LatentTask&, const float* part, float* state);
  void (*latent_finish)(const LatentTask&, const float* state, float* const* outputs);

  void (*softmax_scores)(const float* logits, uint32_t size, float* output);
  void (*sigmoid_scores)(const float* logits, uint32_t size, float* output);
  void (*add_scaled)(const float* input, float factor, size_t size, float* sum);  // sum += factor * input
  void (*gate_row)(float* row, float gate, size_t size);                          // row *= sigmoid(gate)

  void (*convolve_silu)(const ConvolutionTask&);
  void (*normalise_head)(float* head, uint32_t size, float scale);  // * scale / sqrt(sum of squares + 1e-6)
  void (*delta_gates)(const DeltaGatesTask&);
  void (*delta_rule)(const DeltaTask&);
};

}  // namespace shoal::engine::cpu
