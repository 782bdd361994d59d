// Which of an engine's own threads take part in a step, when others need the rest of the machine.
#pragma once

namespace shoal::engine {

// Threads [first, first + count).
struct ThreadShare {
  unsigned first = 0;
  unsigned count = 1;
  bool operator==(const ThreadShare&) const = default;
};

}  // namespace shoal::engine
