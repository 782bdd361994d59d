// How a command says that it failed: one line on stderr, whatever the message holds.
#pragma once

#include <algorithm>
#include <cstdio>
#include <fmt/format.h>
#include <string>

#include "base/result.h"

namespace shoal::cli {

// "shoal: message (hint)"; returns the exit code of a failure.
inline int report_failure(const Error& error) {
  std::string line = error.text();
  std::ranges::replace_if(line, [](char letter) { return letter == '\n' || letter == '\r'; }, ' ');
  fmt::print(stderr, "shoal: {}\n", line);
  return 1;
}

}  // namespace shoal::cli
