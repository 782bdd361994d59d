// Links over RDMA: frames go through a queue pair (RDMA over Thunderbolt, RoCE, InfiniBand), while the tcp
// Link that introduced the two sides stays for heartbeats and the goodbye. There is no completion channel to
// sleep on: who waits looks for LinkOptions::spin, then naps ever longer, up to a fraction of a millisecond.
//
// What an unreliable provider loses is found out and ends the Link: a gap or a damaged byte at once, the last
// SENDs before a silence by counting them over tcp.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "link/link.h"
#include "link/verbs_library.h"

namespace shoal::link {

struct VerbsUpgrade {
  std::unique_ptr<Link> link;    // over RDMA, or the tcp Link as it was
  std::optional<Error> refusal;  // set: why it is still tcp
  bool upgraded() const { return !refusal; }
};

// Both sides call this on their ends of a fresh tcp Link on which nothing has been sent, at about the same
// time. They agree on RC or UC, connect a queue pair each, and use it only if both could. `library` as
// loaded; an Error in its place is our refusal. `local_address` is the numeric address of our end of the tcp
// connection: the device that carries it is used. An Error: the tcp Link itself broke, or the peer did not
// call this until the deadline.
Result<VerbsUpgrade> upgrade_to_verbs(std::unique_ptr<Link> tcp,
                                      const Result<std::shared_ptr<const VerbsLibrary>>& library,
                                      const std::string& local_address, TimePoint deadline,
                                      const LinkOptions& options = {});

}  // namespace shoal::link
