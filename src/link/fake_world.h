// For tests: what is behind FakeVerbs (fake_verbs.h): devices, their objects, and the wire between queue
// pairs.
#pragma once

#include <deque>
#include <map>
#include <mutex>
#include <optional>
#include <random>
#include <set>

#include "link/fake_verbs.h"
#include "link/verbs_device.h"

namespace shoal::link {

struct FakeDevice {
  std::string name;
  verbs::Gid gid;
  bool active = true;
  uint32_t queue_pairs = 0;
};

struct FakeContext : verbs::Context {
  FakeDevice* fake = nullptr;
  uint32_t users = 0;
};

struct FakeCompletions : verbs::CompletionQueue {
  std::deque<verbs::Completion> ready;
  uint32_t users = 0;
};

struct FakeDomain : verbs::ProtectionDomain {
  uint32_t users = 0;
};

struct FakeRequest {
  uint64_t id = 0;
  std::byte* data = nullptr;
  uint32_t bytes = 0;
};

struct FakePair : verbs::QueuePair {
  std::deque<FakeRequest> sends;
  std::deque<FakeRequest> receives;
  uint32_t send_capacity = 0;
  uint32_t receive_capacity = 0;
  verbs::QueuePairAttributes path;  // as of RTR
  FakeDevice* device = nullptr;
};

// One lock around everything. Calls with a state that no provider would survive are refused and noted as
// breaks.
class FakeWorld {
 public:
  explicit FakeWorld(const FakeVerbsOptions& world_options);
  ~FakeWorld();

  bool refused(const char* symbol);                     // fail_next_call was asked for
  int broken(const std::string& rule, int error = 22);  // notes it; returns the error (EINVAL)
  uint32_t cost(uint32_t bytes) const;                  // of a request, in units of depth
  uint32_t frames(uint32_t bytes) const { return (bytes + kVerbsFrameBytes - 1) / kVerbsFrameBytes; }

  int modify(FakePair& pair, const verbs::QueuePairAttributes& attributes, int mask);
  int post(FakePair& pair, std::deque<FakeRequest>& queue, uint32_t capacity, uint64_t id,
           const verbs::Piece* pieces, int piece_count);
  void pump();  // delivers every SEND that can be

  const FakeVerbsOptions options;
  std::mutex mutex;  // guards everything below
  std::deque<FakeDevice> devices;
  std::map<uint32_t, FakePair*> pairs;
  std::map<uint32_t, verbs::MemoryRegion*> regions;
  std::set<const void*> others;  // contexts, domains, completion queues
  uint32_t last_number = 100;
  std::vector<std::string> breaks;
  bool breaks_expected = false;
  std::mt19937_64 random;
  bool frozen = false;
  std::optional<size_t> damage_offset;
  uint32_t drops_due = 0;
  bool failure_due = false;
  std::string refusal_due;
  uint64_t unmatched = 0;
  uint64_t delivered = 0;

 private:
  enum class Outcome { wait, gone };
  Outcome deliver(FakePair& from);
  void complete(verbs::CompletionQueue* queue, uint64_t id, verbs::CompletionStatus status, uint32_t opcode,
                uint32_t bytes, uint32_t number);
  bool happens(double probability) {
    return probability > 0 && std::uniform_real_distribution<double>(0, 1)(random) < probability;
  }
};

}  // namespace shoal::link
