#include "link/verbs_queue.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fmt/format.h>

#include "base/assert.h"
#include "base/system.h"

namespace shoal::link {
namespace {

constexpr uint32_t kFewestSlots = 4;
constexpr uint32_t kThunderboltPsn = 7;      // the only one known to work there
constexpr uint64_t kReceiveId = 1ull << 32;  // set in the id of a RECV
constexpr uint8_t kRetries = 7;      // of RC; 7 of the second kind means without end, the lease ends it
constexpr uint8_t kTimeout = 14;     // 4.096 µs * 2^14 = 67 ms before RC sends again
constexpr uint8_t kMinRnrTimer = 1;  // 10 µs
constexpr const char* kHint = "tcp is used instead";

const char* status_text(verbs::CompletionStatus status) {
  switch (status) {
    case verbs::CompletionStatus::success:
      return "done";
    case verbs::CompletionStatus::local_length:
      return "a SEND did not fit the RECV it met";
    case verbs::CompletionStatus::local_protection:
      return "memory outside its region";
    case verbs::CompletionStatus::flushed:
      return "the queue pair has failed";
    case verbs::CompletionStatus::remote_invalid_request:
      return "the peer could not take a SEND";
    case verbs::CompletionStatus::retries_exceeded:
      return "the peer did not acknowledge";
    case verbs::CompletionStatus::rnr_retries_exceeded:
      return "the peer posted no RECV";
  }
  return "failed";
}

}  // namespace

Result<std::unique_ptr<VerbsQueue>> VerbsQueue::create(std::shared_ptr<const VerbsDevice> device,
                                                       const VerbsTerms& terms) {
  auto queue = std::unique_ptr<VerbsQueue>(new VerbsQueue(std::move(device), terms));
  SHOAL_TRY_VOID(queue->create_objects());
  SHOAL_TRY_VOID(queue->initialise());
  return queue;
}

VerbsQueue::~VerbsQueue() {
  if (pair_ != nullptr) library().destroy_qp(pair_);  // first: nothing may be on its way to memory that ends
  if (completions_ != nullptr) library().destroy_cq(completions_);
  if (region_ != nullptr) library().dereg_mr(region_);
  if (domain_ != nullptr) library().dealloc_pd(domain_);
}

std::unexpected<Error> VerbsQueue::failed(const std::string& what, int error) const {
  return fail(ErrorCode::unavailable, fmt::format("{}: {}: {}", device_->name(), what, std::strerror(error)),
              kHint);
}

Result<> VerbsQueue::create_objects() {
  domain_ = library().alloc_pd(device_->context());
  if (domain_ == nullptr) return failed("no protection domain", errno);
  int error = EINVAL;
  for (slot_count_ = library().rules.slot_count; slot_count_ >= kFewestSlots; slot_count_ /= 2) {
    error = create_queue_pair();
    if (error == 0 || error == EBUSY) break;  // else perhaps too deep
  }
  if (error == EBUSY) return failed("all queue pairs of the device are taken", error);
  if (error == EOPNOTSUPP) {
    return fail(ErrorCode::unsupported, fmt::format("{} has no queue pairs of this type", device_->name()),
                kHint);
  }
  if (error != 0) return failed("cannot create a queue pair", error);

  size_t bytes = size_t{2} * slot_count_ * terms_.slot_bytes;
  SHOAL_ASSERT(bytes <= kVerbsMaxRegionBytes);
  SHOAL_TRY(memory_, HugeBuffer::allocate(bytes, "slots of a verbs link"));
  region_ = library().reg_mr(domain_, memory_.data(), bytes, library().rules.access);
  if (region_ == nullptr) {
    auto refused = failed(fmt::format("cannot register {}", format_bytes(bytes)), errno);
    refused.error().hint = "more memory may have to be lockable (ulimit -l); tcp is used instead";
    return refused;
  }
  for (uint32_t i = slot_count_; i-- > 0;) free_.push_back(i);
  return {};
}

int VerbsQueue::create_queue_pair() {
  // A completion queue of its own size for each try: some providers charge its depth to the device.
  uint32_t entries = 2 * slot_count_;
  completions_ = library().create_cq(device_->context(), static_cast<int>(entries), nullptr, nullptr, 0);
  if (completions_ == nullptr) return errno;
  uint32_t cost = library().rules.depth_in_frames ? terms_.slot_bytes / kVerbsFrameBytes : 1;
  verbs::QueuePairCreation creation;
  creation.send_queue = completions_;
  creation.receive_queue = completions_;
  creation.capacity = {slot_count_ * cost, slot_count_ * cost, 1, 1, 0};
  creation.type = terms_.type;
  pair_ = library().create_qp(domain_, &creation);
  if (pair_ != nullptr) return 0;
  int error = errno;
  library().destroy_cq(std::exchange(completions_, nullptr));
  return error == 0 ? EINVAL : error;
}

Result<> VerbsQueue::modify(verbs::QueuePairAttributes& attributes, int mask, const char* state) {
  int error = library().modify_qp(pair_, &attributes, mask | verbs::kSetState);
  if (error == 0) return {};
  return failed(fmt::format("the queue pair does not become {}", state), error < 0 ? errno : error);
}

Result<> VerbsQueue::initialise() {
  psn_ = library().rules.reliable ? static_cast<uint32_t>(random_u64() & 0xffffff) : kThunderboltPsn;
  verbs::QueuePairAttributes attributes;
  attributes.state = verbs::QueuePairState::init;
  attributes.port = VerbsDevice::kPort;
  attributes.access = static_cast<uint32_t>(library().rules.access);
  return modify(attributes, verbs::kSetPkeyIndex | verbs::kSetPort | verbs::kSetAccess, "INIT");
}

VerbsEndpoint VerbsQueue::endpoint() const {
  return {device_->port().lid, pair_->number, psn_, device_->gid(), device_->has_gid(), slot_count_};
}

Result<> VerbsQueue::connect(const VerbsEndpoint& peer) {
  verbs::QueuePairAttributes attributes;
  attributes.state = verbs::QueuePairState::rtr;
  attributes.path_mtu = terms_.mtu;
  attributes.receive_psn = peer.psn;
  attributes.destination_number = peer.number;
  attributes.path.destination_lid = peer.lid;
  attributes.path.port = VerbsDevice::kPort;
  if (device_->has_gid() && peer.has_gid != 0) {
    attributes.path.is_global = 1;
    attributes.path.route.destination = peer.gid;
    attributes.path.route.source_gid_index = static_cast<uint8_t>(device_->gid_index());
    attributes.path.route.hop_limit = library().rules.hop_limit;
  }
  int mask = verbs::kSetPath | verbs::kSetPathMtu | verbs::kSetDestination | verbs::kSetReceivePsn;
  if (terms_.type == verbs::QueuePairType::rc) {
    attributes.max_destination_reads = 1;
    attributes.min_rnr_timer = kMinRnrTimer;
    mask |= verbs::kSetMaxDestinationReads | verbs::kSetMinRnrTimer;
  }
  return modify(attributes, mask, "RTR");
}

Result<> VerbsQueue::start() {
  verbs::QueuePairAttributes attributes;
  attributes.state = verbs::QueuePairState::rts;
  attributes.send_psn = psn_;
  int mask = verbs::kSetSendPsn;
  if (terms_.type == verbs::QueuePairType::rc) {
    attributes.timeout = kTimeout;
    attributes.retries = kRetries;
    attributes.rnr_retries = kRetries;
    attributes.max_reads = 1;
    mask |= verbs::kSetTimeout | verbs::kSetRetries | verbs::kSetRnrRetries | verbs::kSetMaxReads;
  }
  SHOAL_TRY_VOID(modify(attributes, mask, "RTS"));
  for (uint32_t i = 0; i < slot_count_; ++i) SHOAL_TRY_VOID(receive_again(i));
  return {};
}

std::span<std::byte> VerbsQueue::free_slot() {
  if (free_.empty()) return {};
  return {slot(free_.back()), terms_.slot_bytes};
}

Result<> VerbsQueue::send_slot(size_t bytes) {
  SHOAL_ASSERT(!free_.empty() && bytes != 0 && bytes <= terms_.slot_bytes);
  // One byte of the slot's last frame is enough to cover as many frames as the RECV does.
  if (terms_.equal_frames) bytes = std::max<size_t>(bytes, terms_.slot_bytes - kVerbsFrameBytes + 1);
  uint32_t index = free_.back();
  verbs::Piece piece{reinterpret_cast<uint64_t>(slot(index)), static_cast<uint32_t>(bytes), region_->lkey};
  verbs::SendRequest request;
  request.id = index;
  request.pieces = &piece;
  request.piece_count = 1;
  request.flags = verbs::kSendSignaled;
  verbs::SendRequest* refused = nullptr;
  int error = operations().post_send(pair_, &request, &refused);
  if (error != 0) return failed("a SEND was refused", error < 0 ? errno : error);
  free_.pop_back();
  return {};
}

Result<> VerbsQueue::receive_again(uint32_t index) {
  SHOAL_ASSERT(index < slot_count_);
  verbs::Piece piece{reinterpret_cast<uint64_t>(slot(slot_count_ + index)), terms_.slot_bytes, region_->lkey};
  verbs::ReceiveRequest request;
  request.id = kReceiveId | index;
  request.pieces = &piece;
  request.piece_count = 1;
  verbs::ReceiveRequest* refused = nullptr;
  int error = operations().post_receive(pair_, &request, &refused);
  if (error != 0) return failed("a RECV was refused", error < 0 ? errno : error);
  return {};
}

void VerbsQueue::note(const verbs::Completion& failed_request) {
  if (failure_) return;  // what follows was flushed
  failure_ =
      Error{ErrorCode::unavailable,
            fmt::format("{}: {} (completion status {})", device_->name(), status_text(failed_request.status),
                        static_cast<uint32_t>(failed_request.status)),
            ""};
}

Result<std::span<const VerbsQueue::Received>> VerbsQueue::poll() {
  if (failure_) return std::unexpected(*failure_);
  int count =
      operations().poll_completions(completions_, static_cast<int>(completed_.size()), completed_.data());
  if (count < 0) return failed("its completions cannot be read", errno);
  size_t received = 0;
  for (const verbs::Completion& done : std::span(completed_).first(static_cast<size_t>(count))) {
    auto index = static_cast<uint32_t>(done.id);
    if (done.status != verbs::CompletionStatus::success || index >= slot_count_) {
      note(done);
    } else if ((done.id & kReceiveId) == 0) {
      free_.push_back(index);
      ++completed_sends_;
    } else {
      size_t bytes = std::min<size_t>(done.byte_count, terms_.slot_bytes);
      received_[received++] = {index, ByteView(slot(slot_count_ + index), bytes)};
    }
  }
  if (received == 0 && failure_) return std::unexpected(*failure_);
  return std::span<const Received>(received_).first(received);
}

}  // namespace shoal::link
