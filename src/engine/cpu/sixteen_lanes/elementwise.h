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

// 1 / (1 + exp(-x))
inline F32x16 logistic(F32x16 x) {
  F32x16 one = broadcast(1.0f);
  return divide(one, add(one, exponential(subtract(zero_f32(), x))));
}
// cap * tanh(x / cap), within a few ulp of the result. tanh(y) of y = |x / cap| is 1 - 2 / (1 + exp(2 y))
// from 0.5 on and sinh / cosh by their Taylor polynomials of degree 9 and 8 below. NaN stays NaN.
inline F32x16 soft_cap(F32x16 x, F32x16 cap) {
  const float border = 0.5f, below_border = 0.49999997f;
  F32x16 one = broadcast(1.0f), quotient = divide(x, cap);
  I32x16 sign = bit_and(bits(quotient), broadcast(INT32_MIN));
  F32x16 y = from_bits(bit_and(bits(quotient), broadcast(INT32_MAX)));
  F32x16 large = subtract(one, divide(broadcast(2.0f), add(one, exponential(add(y, y)))));
  F32x16 z = multiply(y, y);
  F32x16 sinh = fma(z, broadcast(1.0f / 362880), broadcast(1.0f / 5040));
  sinh = fma(sinh, z, broadcast(1.0f / 120));
  sinh = fma(sinh, z, broadcast(1.0f / 6));
  sinh = fma(multiply(sinh, z), y, y);
  F32x16 cosh = fma(z, broadcast(1.0f / 40320), broadcast(1.0f / 720));
  cosh = fma(cosh, z, broadcast(1.0f / 24));
  cosh = fma(cosh, z, broadcast(0.5f));
  cosh = fma(cosh, z, one);
  // One of the two is 0, unless both are NaN.
  F32x16 tanh = add(zero_where_less(y, broadcast(border), large),
                    zero_where_less(broadcast(below_border), y, divide(sinh, cosh)));
  return multiply(from_bits(add(bits(tanh), sign)), cap);
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

void sigmoid_multiply(const float* gate, const float* up, size_t size, float* output) {
  for_lanes(size, [&](size_t i, uint32_t count) {
    F32x16 factor = logistic(load_up_to(gate + i, count));
    store_up_to(output + i, multiply(factor, load_up_to(up + i, count)), count);
  });
}
// g / (1 + exp(-alpha g)) * (u + 1), where minimum and maximum have the value second, so that NaN stays.
void clamped_swiglu(const float* gate, const float* up, float alpha, float limit, size_t size,
                    float* output) {
  F32x16 one = broadcast(1.0f), negated_alpha = broadcast(-alpha);
  F32x16 top = broadcast(limit), bottom = broadcast(-limit);
  for_lanes(size, [&](size_t i, uint32_t count) {
    F32x16 g = minimum(top, load_up_to(gate + i, count));
    F32x16 u = maximum(bottom, minimum(top, load_up_to(up + i, count)));
    F32x16 gated = divide(g, add(one, exponential(multiply(g, negated_alpha))));
    store_up_to(output + i, multiply(gated, add(u, one)), count);
  });
}

void scale_by(const float* input, float factor, size_t size, float* output) {
  F32x16 by = broadcast(factor);
  for_lanes(size, [&](size_t i, uint32_t count) {
    store_up_to(output + i, multiply(load_up_to(input + i, count), by), count);
  });
}
void softcap(const float* input, float cap, size_t size, float* output) {
  F32x16 caps = broadcast(cap);
  for_lanes(size, [&](size_t i, uint32_t count) {
    store_up_to(output + i, soft_cap(load_up_to(input + i, count), caps), count);
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
