// For tests: an RDMA provider inside one process, between threads, that holds its user to the rules which
// real ones only punish: states and their masks, numbers and sizes of queue pairs and memory regions, depth,
// one piece to a request, signalled SENDs, equal numbers of 4 KiB frames, memory that belongs to the provider
// until completion. A rule broken is a test failed, unless rule_breaks are expected. On demand it drops,
// damages, freezes, fails.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "link/verbs_link.h"

namespace shoal::link {

struct FakeVerbsOptions {
  bool thunderbolt = true;  // UC alone, equal frames, RECVs only at RTS; else a fabric
  bool reliable = true;     // a fabric has RC
  std::vector<std::string> addresses = {"10.0.0.1", "10.0.0.2"};  // a device each: rdma_en0, rdma_en1, …
  uint32_t queue_pairs = 10;                                      // of a device
  uint32_t regions = 100;
  uint64_t region_bytes = uint64_t{1} << 30;
  uint32_t depth = 256;  // per queue and direction; frames on Thunderbolt, else requests
  uint64_t seed = 1;
  double drop = 0;    // probability per SEND of UC; RC sends again
  double damage = 0;  // of one flipped bit among a SEND's first 200 bytes
};

class FakeWorld;

// The provider of this process while it lives; one at a time. Everything opened must be closed before it
// ends.
class FakeVerbs {
 public:
  explicit FakeVerbs(const FakeVerbsOptions& options = {});
  ~FakeVerbs();
  FakeVerbs(const FakeVerbs&) = delete;
  FakeVerbs& operator=(const FakeVerbs&) = delete;

  std::shared_ptr<const VerbsLibrary> library() const;
  static void* symbol(const char* name);  // null: none of that name

  void freeze();                         // from now on no SEND arrives
  void damage_next_send(size_t offset);  // that is longer than offset; flips a bit there
  void drop_next_sends(uint32_t count);  // even of RC
  void fail_next_send();                 // completes with an error
  void refuse_next(std::string symbol);  // the next call of this symbol fails, with EINVAL
  void set_down(size_t device);          // its port is not active
  // Breaks of rules are kept for the caller from now on, rather than failing the test.
  void expect_rule_breaks();

  std::vector<std::string> rule_breaks() const;
  uint64_t unmatched_sends() const;  // that met no RECV; a UC drops them
  uint64_t delivered_sends() const;
  uint32_t open_queue_pairs() const;

 private:
  std::unique_ptr<FakeWorld> world_;
};

// Both ends of a Link, upgraded at once over the first two devices.
using VerbsUpgrades = std::pair<Result<VerbsUpgrade>, Result<VerbsUpgrade>>;
VerbsUpgrades upgrade_both(const FakeVerbs& fake, std::unique_ptr<Link> first, std::unique_ptr<Link> second,
                           const LinkOptions& options = {});

}  // namespace shoal::link
