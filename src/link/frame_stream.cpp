#include "link/frame_stream.h"

#include <fmt/format.h>
#include <sys/socket.h>

namespace shoal::link {

std::unexpected<Error> FrameStream::lost(const std::string& why) const {
  return fail(ErrorCode::unavailable, fmt::format("link to {} lost: {}", peer_, why));
}

Result<> FrameStream::meet_end() {
  if (!queues_.peer_closed() && !queues_.close_sent()) return lost("the peer ended without a goodbye");
  ended_ = true;
  return {};
}

void FrameStream::end_sending() {
  ::shutdown(socket_.get(), SHUT_WR);
}
void FrameStream::cut() {
  ::shutdown(socket_.get(), SHUT_RDWR);
}

}  // namespace shoal::link
