// One block of each quantised type of ggml to its exact floats: `values` has room for
// type_info().block_values. Inside of dequantise(); quant_blocks.h says what the blocks hold.
#pragma once

#include <cstddef>

namespace shoal::formats {

// Blocks of 32 (dequantise_small_blocks.cpp).
void dequantise_q8_0(const std::byte* block, float* values);
void dequantise_q4_0(const std::byte* block, float* values);
void dequantise_q4_1(const std::byte* block, float* values);
void dequantise_q5_0(const std::byte* block, float* values);
void dequantise_q5_1(const std::byte* block, float* values);
void dequantise_iq4_nl(const std::byte* block, float* values);
void dequantise_mxfp4(const std::byte* block, float* values);

// Blocks of 256 (dequantise_large_blocks.cpp).
void dequantise_q2_k(const std::byte* block, float* values);
void dequantise_q3_k(const std::byte* block, float* values);
void dequantise_q4_k(const std::byte* block, float* values);
void dequantise_q5_k(const std::byte* block, float* values);
void dequantise_q6_k(const std::byte* block, float* values);
void dequantise_iq4_xs(const std::byte* block, float* values);

}  // namespace shoal::formats
