// `shoal logits`: what a model computes for given token ids, without a cluster. For checking numerics: the
// stages run in this process through the same code as in workers.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace shoal::cli {

struct LogitsOptions {
  std::string path;               // a .gguf file or a model directory
  std::string tokens;             // "1,2,3"
  std::string positions = "all";  // or "last"
  uint32_t stages = 1;
  uint32_t ranks = 1;      // of each stage
  std::string shares;      // "2,1,1": what each rank holds; empty: equal
  uint32_t generate = 0;   // 0: print logits; else this many greedy tokens, end-of-sequence ignored
  std::string kv = "f16";  // f32, f16 or q8
  std::string isa;         // empty: the fastest here
  uint32_t chunk = 512;    // prompt tokens per step
  uint32_t threads = 0;    // 0: all usable cores
  bool json = false;
};

// Prints {"logits":[[…], …]} (every digit of the f32) or {"tokens":[…]}; without `json` a table or a line of
// ids. Returns the exit code; on failure one line went to stderr.
int run_logits(const LogitsOptions& options);

// "1,2,3"; spaces are allowed. invalid_argument names the flag and what is not a number from 0 on.
Result<std::vector<int32_t>> parse_whole_numbers(std::string_view text, std::string_view flag);
Result<std::vector<int32_t>> parse_token_ids(std::string_view text);

}  // namespace shoal::cli
