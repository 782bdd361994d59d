// `shoal run`: a chat in the terminal, or one answer. Asks the node at the URL; when none answers there, it
// starts one in this process that only this process reaches.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "cli/ask_commands.h"

namespace shoal::cli {

struct RunOptions {
  AskOptions ask;
  std::string model;
  std::optional<std::string> prompt;  // answer this one and exit
  std::string system;                 // a system message; may be empty
  std::optional<double> temperature;
  std::optional<uint64_t> seed;
  std::optional<uint32_t> max_tokens;
  uint64_t memory_bytes = 0;  // of a node started here; 0: its own choice
  uint32_t threads = 0;
};

int run_chat(const RunOptions& options);

}  // namespace shoal::cli
