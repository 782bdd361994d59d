#include "link/link.h"

#include <fmt/format.h>

#include "base/system.h"

namespace shoal::link {

Duration LinkOptions::default_spin() {
  return microseconds(usable_core_count() >= 4 ? 50 : 5);
}

Result<Frame> Link::exchange(Frame frame, TimePoint deadline) {
  uint8_t channel = frame.channel;
  SHOAL_TRY_VOID(send(std::move(frame), deadline));
  SHOAL_TRY(std::optional<Frame> received, receive(channel, deadline));
  if (!received) return fail(ErrorCode::timeout, fmt::format("link to {}: nothing came in exchange", peer()));
  return std::move(*received);
}

}  // namespace shoal::link
