// The Link over a FrameStream: who moves the bytes, who sleeps and who wakes whom, and the heartbeats that go
// over a second connection, so that a long transfer or a long computation never looks like silence.
#pragma once

#include <memory>

#include "link/frame_stream.h"
#include "link/link.h"

namespace shoal::link {

// `control` is a connected socket whose other end makes a Link too. An Error (io) when the system has no
// descriptors left.
Result<std::unique_ptr<Link>> make_stream_link(std::unique_ptr<FrameStream> stream, FileDescriptor control,
                                               const LinkOptions& options);

}  // namespace shoal::link
