// Norm, activations, rope, exp and conversions over sixteen lanes. Include after a lanes.h.
#pragma once

namespace shoal::engine::cpu {
namespace {

// Calls function(offset, count) for runs of 16 and the rest.
template <class Function>
inline void for_lanes(size_t size, Function function) {
  size_t i = 0;
  for (; i + 16 <= size; i += 16) function(i, 16u);
  if (i < size) function(i, static_cast<uint32_t>(size - i));
}
inline F32x16 load_up_to(const float* from, uint32_t count) {
  return count == 16 ? load(from) : load_partial(from, count);
}
inline void store_up_to(float* to, F32x16 value, uint32_t count) {
  if (count == 16) {
    store(to, value);
  } else {
    store_partial(to, value, count);
  }
}

// exp(x): x = n ln 2 + r with |r| <= ln 2 / 2, n by the round-to-nearest trick, ln 2 in two parts; e^r by its
// Taylor polynomial of degree 7; 2^n through the exponent bits. Within 2 ulp. Below -87.3 the result is 0
// (never a denormal); above 88.3 it stays at exp(88.3), so that x / (1 + exp(-x)) stays finite. NaN gives
// exp(-87.3).
inline F32x16 exponential(F32x16 x) {
  const float lowest = -87.3f;
  F32x16 clamped = minimum(maximum(x, broadcast(lowest)), broadcast(88.3f));
  F32x16 shift = broadcast(12582912.0f);
  F32x16 shifted = fma(clamped, broadcast(1.44269504f), shift);
  F32x16 n = subtract(shifted, shift);
  F32x16 r = negative_fma(n, broadcast(0.693145752f), clamped);
  r = negative_fma(n, broadcast(1.42860677e-6f), r);
  F32x16 p = broadcast(1.98412698e-4f);
  p = fma(p, r, broadcast(1.38888889e-3f));
  p = fma(p, r, broadcast(8.33333333e-3f));
  p = fma(p, r, broadcast(4.16666667e-2f));
  p = fma(p, r, broadcast(1.66666667e-1f));
  p = fma(p, r, broadcast(0.5f));
  p = fma(p, r, broadcast(1.0f));
  p = fma(p, r, broadcast(1.0f));
  // The low bits of `shifted` hold n; adding them to p's exponent multiplies by 2^n.
  F32x16 scaled = from_bits(add(bits(p), shift_left<23>(bits(shifted))));
  return zero_where_less(x, broadcast(lowest), scaled);
}

void exponential_of(const float* input, size_t size, float* output) {
  for_lanes(size, [&](size_t i, uint32_t count) {
    store_up_to(output + i, exponential(load_up_to(input + i, count)), count);
  });
}

void rms_norm(const float* input, const float* weight, uint32_t size, float epsilon, float* output) {
  F32x16 squares = zero_f32();
  for_lanes(size, [&](size_t i, uint32_t count) {
    F32x16 x = load_up_to(input + i, count);
    squares = fma(x, x, squares);
  });
  float mean = fold_add(squares) / static_cast<float>(size);
  F32x16 scale = broadcast(1.0f / __builtin_sqrtf(mean + epsilon));
  for_lanes(size, [&](size_t i, uint32_t count) {
    F32x16 scaled = multiply(load_up_to(input + i, count), scale);
    store_up_to(output + i, multiply(scaled, load_up_to(weight + i, count)), count);
  });
}

void add_rows(const float* a, const float* b, size_t size, float* output) {
  for_lanes(size, [&](size_t i, uint32_t count) {
    store_up_to(output + i, add(load_up_to(a + i, count), load_up_to(b + i, count)), count);
  });
}

// x / (1 + exp(-x))
inline F32x16 silu(F32x16 x) {
  return divide(x, add(broadcast(1.0f), exponential(subtract(zero_f32(), x))));
}
// 0.5 x (1 + tanh(u)) with u = sqrt(2 / pi) (x + 0.044715 x^3), which is x / (1 + exp(-2 u)).
inline F32x16 gelu_tanh(F32x16 x) {
  F32x16 cubic = fma(multiply(multiply(x, x), x), broadcast(0.044715f), x);
  F32x16 minus_two_u = multiply(cubic, broadcast(-1.59576912f));
  return divide(x, add(broadcast(1.0f), exponential(minus_two_u)));
}

void silu_multiply(const float* gate, const float* up, size_t size, float* output) {
  for_lanes(size, [&](size_t i, uint32_t count) {
    store_up_to(output + i, multiply(silu(load_up_to(gate + i, count)), load_up_to(up + i, count)), count);
  });
}
void gelu_tanh_multiply(const float* gate, const float* up, size_t size, float* output) {
  for_lanes(size, [&](size_t i, uint32_t count) {
    store_up_to(output + i, multiply(gelu_tanh(load_up_to(gate + i, count)), load_up_to(up + i, count)),
                count);
  });
}

// (a, b) -> (a c - b s, b c + a s), with a c and b c rounded first.
void rope_halves(float* head, const float* cosines, const float* sines, uint32_t pairs) {
  for_lanes(pairs, [&](size_t i, uint32_t count) {
    F32x16 a = load_up_to(head + i, count), b = load_up_to(head + pairs + i, count);
    F32x16 c = load_up_to(cosines + i, count), s = load_up_to(sines + i, count);
    store_up_to(head + i, negative_fma(b, s, multiply(a, c)), count);
    store_up_to(head + pairs + i, fma(a, s, multiply(b, c)), count);
  });
}
void rope_interleaved(float* head, const float* cosines, const float* sines, uint32_t pairs) {
  for (uint32_t i = 0; i < pairs; ++i) {
    float a = head[2 * i], b = head[2 * i + 1];
    head[2 * i] = __builtin_fmaf(-b, sines[i], a * cosines[i]);
    head[2 * i + 1] = __builtin_fmaf(a, sines[i], b * cosines[i]);
  }
}

void to_f16(const float* input, size_t size, uint16_t* output) {
  for_lanes(size, [&](size_t i, uint32_t count) {
    if (count == 16) {
      store_f16(output + i, load(input + i));
      return;
    }
    uint16_t last[16];
    store_f16(last, load_partial(input + i, count));
    __builtin_memcpy(output + i, last, count * sizeof(uint16_t));
  });
}

}  // namespace
}  // namespace shoal::engine::cpu
