// How a command says that it failed: one line on stderr, whatever the message holds.
#pragma once

#include <cstdio>
#include <fmt/format.h>

#include "base/result.h"
#include "cli/terminal.h"

namespace shoal::cli {

// "shoal: message (hint)"; returns the exit code of a failure.
inline int report_failure(const Error& error) {
  fmt::print(stderr, "shoal: {}\n", printable(error.text()));
  return 1;
}

}  // namespace shoal::cli
