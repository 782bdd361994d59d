// SHOAL_ASSERT states an invariant of our own code and stays on in release: a wrong token is worse than a stopped
// worker, and a stopped worker takes nothing else down. Never use it on bytes that came from outside.
#pragma once

namespace shoal {
[[noreturn]] void assertion_failed(const char* expression, const char* file, int line) noexcept;
}  // namespace shoal

#define SHOAL_ASSERT(expression) \
  (static_cast<bool>(expression) ? void(0) : ::shoal::assertion_failed(#expression, __FILE__, __LINE__))
