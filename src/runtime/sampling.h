// How the next token is chosen. Sampling is a pure function of (logits, parameters, history, position): the
// random number is drawn from a counter keyed by (seed, position), so a resumed request goes on with the same
// tokens.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"

namespace shoal::runtime {

// Field defaults are "off". The order of application is: repetition, presence and frequency penalties, logit
// bias, temperature, top-k, top-p, min-p.
struct SamplingParameters {
  float temperature = 1;  // 0: greedy (ties go to the lowest id)
  uint32_t top_k = 0;     // 0: all
  float top_p = 1;
  float min_p = 0;
  // Divides positive and multiplies negative logits of tokens in prompt or answer.
  float repetition_penalty = 1;
  float presence_penalty = 0;   // subtracted once per token that occurs in the answer
  float frequency_penalty = 0;  // subtracted per occurrence in the answer
  uint64_t seed = 0;
  uint32_t top_logprobs = 0;  // alternatives to report per token; logprobs are of the raw distribution
  std::vector<std::pair<int32_t, float>> logit_bias = {};

  void encode(ByteWriter& writer) const;
  static Result<SamplingParameters> decode(ByteReader& reader);
};

struct TokenLogprob {
  int32_t token;
  float logprob;
};

struct SampledToken {
  int32_t token = 0;
  float logprob = 0;                            // of the raw distribution, before penalties and temperature
  std::vector<TokenLogprob> alternatives = {};  // most likely first
};

// What a sequence has said so far: counts for the penalties. One per sampled sequence, kept by the last
// stage.
class TokenHistory {
 public:
  void add_prompt(std::span<const int32_t> tokens);
  void add_answer(int32_t token);

  struct Count {
    int32_t token;
    uint32_t in_prompt;
    uint32_t in_answer;
  };
  std::span<const Count> counts() const { return counts_; }  // sorted by token

 private:
  Count& entry(int32_t token);
  std::vector<Count> counts_;
};

// `logits` [vocabulary] is not changed. `position` is the index in the sequence of the token being chosen.
SampledToken sample(std::span<const float> logits, const SamplingParameters& parameters,
                    const TokenHistory& history, uint64_t position);

}  // namespace shoal::runtime
