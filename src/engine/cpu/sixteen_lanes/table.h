// The table of one instruction set, from the kernels written over its lanes. Include after its lanes.h, once.
#pragma once

#include "engine/cpu/sixteen_lanes/attention.h"
#include "engine/cpu/sixteen_lanes/blocks_of_256.h"
#include "engine/cpu/sixteen_lanes/blocks_of_32.h"
#include "engine/cpu/sixteen_lanes/latent_attention.h"
#include "engine/cpu/sixteen_lanes/delta.h"
#include "engine/cpu/sixteen_lanes/elementwise.h"
#include "engine/cpu/sixteen_lanes/float_weights.h"
#include "engine/cpu/sixteen_lanes/prepare.h"
#include "engine/cpu/sixteen_lanes/router.h"

namespace shoal::engine::cpu {
namespace {

constexpr Kernels kTable = {
    .isa = kIsa,
    .tile_rows = kTileRows,
    .multiply = {multiply_float<F32Weights>,
                 multiply_float<F16Weights>,
                 multiply_float<Bf16Weights>,
                 multiply_float<F8Weights>,
                 multiply_float<Mxfp4Weights>,
                 multiply_quantised<Symmetric<EightBits, 128>>,  // q8_0
                 multiply_quantised<Symmetric<FourBits, 8>>,     // q4_0
                 multiply_quantised<Symmetric<FiveBits, 16>>,    // q5_0
                 multiply_quantised<Symmetric<Iq4Bits, 128>>,    // iq4_nl
                 multiply_quantised<Affine<FourBits, F16Scales>>,
                 multiply_quantised<Affine<FourBits, Bf16Scales>>,
                 multiply_quantised<Affine<FourBits, F32Scales>>,
                 multiply_quantised<Affine<FiveBits, F16Scales>>,
                 multiply_quantised<Affine<EightBits, F16Scales>>,
                 multiply_quantised<Affine<EightBits, Bf16Scales>>,
                 multiply_quantised<Affine<EightBits, F32Scales>>,
                 multiply_quantised<UnpackingSuperBlocks<Q2_K>>,
                 multiply_quantised<UnpackingSuperBlocks<Q3_K>>,
                 multiply_quantised<SuperBlocks<Q4_K>>,
                 multiply_quantised<UnpackingSuperBlocks<Q5_K>>,
                 multiply_quantised<UnpackingSuperBlocks<Q6_K>>,
                 multiply_quantised<SuperBlocks<Iq4_Xs>>},
    .prepare = {prepare_f32, prepare_q8_32, prepare_q8_256},
    .rms_norm = rms_norm,
    .add = add_rows,
    .silu_multiply = silu_multiply,
    .gelu_tanh_multiply = gelu_tanh_multiply,
    .sigmoid_multiply = sigmoid_multiply,
    .clamped_swiglu = clamped_swiglu,
    .scale = scale_by,
    .softcap = softcap,
    .exponential = exponential_of,
    .rope_halves = rope_halves,
    .rope_interleaved = rope_interleaved,
    .to_f16 = to_f16,
    .to_q8 = to_q8,
    .attend_f32 = attend<CacheF32>,
    .attend_f16 = attend<CacheF16>,
    .attend_q8 = attend<CacheQ8>,
    .attention_fold = attention_fold,
    .attention_finish = attention_finish,
    .latent_f32 = attend_latent<CacheF32>,
    .latent_f16 = attend_latent<CacheF16>,
    .latent_q8 = attend_latent<CacheQ8>,
    .latent_fold = latent_fold,
    .latent_finish = latent_finish,
    .softmax_scores = softmax_scores,
    .sigmoid_scores = sigmoid_scores,
    .add_scaled = add_scaled,
    .gate_row = gate_row,
    .convolve_silu = convolve_silu,
    .normalise_head = normalise_head,
    .delta_gates = delta_gates,
    .delta_rule = delta_rule,
};

}  // namespace
}  // namespace shoal::engine::cpu
