// One queue pair, connected to one of the peer, and the registered memory that it moves: slots of equal size,
// some to send from and some to receive into. Knows the verbs and their states; what the bytes mean is
// decided above. Not thread-safe.
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/bytes.h"
#include "base/memory.h"
#include "base/result.h"
#include "link/verbs_device.h"

namespace shoal::link {

// What the other side must know of a queue pair to connect to it.
struct VerbsEndpoint {
  uint16_t lid = 0;
  uint32_t number = 0;  // of the queue pair
  uint32_t psn = 0;     // its first packet's sequence number
  verbs::Gid gid;
  uint8_t has_gid = 0;
  uint32_t slot_count = 0;  // RECVs it keeps posted
};

// What both sides have agreed on.
struct VerbsTerms {
  verbs::QueuePairType type = verbs::QueuePairType::uc;
  verbs::Mtu mtu = verbs::Mtu::bytes_1024;
  uint32_t slot_bytes = 4096;
  bool equal_frames = true;
  bool operator==(const VerbsTerms&) const = default;
};

class VerbsQueue {
 public:
  // Reset -> INIT, with as many slots as the provider grants. `unavailable`: no queue pair or memory region
  // is left; `unsupported`: the device has no queue pairs of this type.
  static Result<std::unique_ptr<VerbsQueue>> create(std::shared_ptr<const VerbsDevice> device,
                                                    const VerbsTerms& terms);
  ~VerbsQueue();
  VerbsQueue(const VerbsQueue&) = delete;
  VerbsQueue& operator=(const VerbsQueue&) = delete;

  VerbsEndpoint endpoint() const;
  uint32_t slot_count() const { return slot_count_; }
  Result<> connect(const VerbsEndpoint& peer);  // INIT -> RTR
  Result<> start();                             // RTR -> RTS, and posts every RECV

  // The slot to fill next, or none while all are on their way. Stays the same until send_slot().
  std::span<std::byte> free_slot();
  Result<> send_slot(size_t bytes);  // the first bytes of free_slot(), at least 1
  uint32_t completed_sends() const { return completed_sends_; }
  bool idle() const { return free_.size() == slot_count_; }

  struct Received {
    uint32_t slot = 0;
    ByteView bytes;
  };
  // SENDs of the peer in order of arrival, a bounded number of them; valid until the next call. Also collects
  // what was sent. unavailable: a request failed; what had arrived before that is given out first.
  Result<std::span<const Received>> poll();
  Result<> receive_again(uint32_t slot);  // posts its RECV anew

 private:
  VerbsQueue(std::shared_ptr<const VerbsDevice> device, const VerbsTerms& terms)
      : device_(std::move(device)), terms_(terms) {}
  const VerbsLibrary& library() const { return device_->library(); }
  const verbs::ContextOperations& operations() const { return device_->context()->operations; }
  Result<> create_objects();
  void note(const verbs::Completion& failed_request);
  int create_queue_pair();  // 0 or errno
  Result<> initialise();
  Result<> modify(verbs::QueuePairAttributes& attributes, int mask, const char* state);
  std::unexpected<Error> failed(const std::string& what, int error) const;
  std::byte* slot(size_t index) const { return memory_.data() + index * terms_.slot_bytes; }

  std::shared_ptr<const VerbsDevice> device_;
  VerbsTerms terms_;
  uint32_t slot_count_ = 0;
  uint32_t psn_ = 0;
  verbs::ProtectionDomain* domain_ = nullptr;
  verbs::CompletionQueue* completions_ = nullptr;
  verbs::QueuePair* pair_ = nullptr;
  HugeBuffer memory_;  // the slots to send from, then those to receive into
  verbs::MemoryRegion* region_ = nullptr;
  std::vector<uint32_t> free_;  // slots to send from
  uint32_t completed_sends_ = 0;
  std::optional<Error> failure_;
  std::array<verbs::Completion, 16> completed_;
  std::array<Received, 16> received_;
};

}  // namespace shoal::link
