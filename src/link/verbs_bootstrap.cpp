#include "link/verbs_bootstrap.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <fmt/format.h>

#include "base/system.h"

namespace shoal::link {
namespace {

constexpr uint32_t kMagic = 0x31425653;  // "SVB1"
constexpr uint64_t kMaxTextBytes = 1024;
constexpr uint32_t kMaxSlotBytes = 4 << 20;
constexpr uint32_t kMaxSlots = 4096;

bool sensible(const VerbsTerms& terms) {
  bool type = terms.type == verbs::QueuePairType::rc || terms.type == verbs::QueuePairType::uc;
  bool mtu = terms.mtu >= verbs::Mtu::bytes_256 && terms.mtu <= verbs::Mtu::bytes_4096;
  return type && mtu && terms.slot_bytes >= kVerbsFrameBytes && terms.slot_bytes <= kMaxSlotBytes &&
         std::has_single_bit(terms.slot_bytes);
}

VerbsTerms both_can(const VerbsTerms& own, const VerbsTerms& peer) {
  bool reliable = own.type == verbs::QueuePairType::rc && peer.type == verbs::QueuePairType::rc;
  return {reliable ? verbs::QueuePairType::rc : verbs::QueuePairType::uc, std::min(own.mtu, peer.mtu),
          std::min(own.slot_bytes, peer.slot_bytes), own.equal_frames || peer.equal_frames};
}

class Introduction {
 public:
  Introduction(Link& tcp, TimePoint deadline) : tcp_(tcp), deadline_(deadline) {}

  // Says ours, hears theirs. A refusal of either side ends up in refusal().
  Result<VerbsMessage> round(VerbsMessage own) {
    Bytes bytes = encode_verbs_message(own);
    SHOAL_TRY(Buffer buffer, tcp_.allocate(bytes.size()));
    std::memcpy(buffer.data(), bytes.data(), bytes.size());
    SHOAL_TRY(Frame answer, tcp_.exchange({kVerbsControlChannel, 0, std::move(buffer)}, deadline_));
    SHOAL_TRY(VerbsMessage theirs, decode_verbs_message(answer.payload.view()));
    if (own.refusal) {
      refusal_ = std::move(own.refusal);
    } else if (theirs.refusal) {
      Error& said = *theirs.refusal;
      refusal_ = Error{said.code, fmt::format("{} refused RDMA: {}", tcp_.peer(), said.message), said.hint};
    }
    return theirs;
  }
  const std::optional<Error>& refusal() const { return refusal_; }

 private:
  Link& tcp_;
  const TimePoint deadline_;
  std::optional<Error> refusal_;
};

template <class T>
std::optional<Error> refusal_of(const Result<T>& result) {
  if (result) return std::nullopt;
  return result.error();
}

// The best queue pair that the device has: RC, or UC where there is no RC.
Result<std::unique_ptr<VerbsQueue>> best_queue(const std::shared_ptr<const VerbsDevice>& device,
                                               VerbsTerms& terms) {
  const VerbsRules& rules = device->library().rules;
  terms = {verbs::QueuePairType::rc, std::min(device->port().active_mtu, rules.largest_mtu), rules.slot_bytes,
           rules.equal_frames};
  if (rules.reliable) {
    auto queue = VerbsQueue::create(device, terms);
    if (queue || queue.error().code != ErrorCode::unsupported) return queue;
  }
  terms.type = verbs::QueuePairType::uc;
  return VerbsQueue::create(device, terms);
}

}  // namespace

Bytes encode_verbs_message(const VerbsMessage& message) {
  ByteWriter writer;
  writer.write(kMagic);
  writer.write(static_cast<uint8_t>(message.refusal.has_value()));
  Error error = message.refusal.value_or(Error{});
  writer.write_text(to_string(error.code));
  writer.write_text(error.message.substr(0, kMaxTextBytes));
  writer.write_text(error.hint.substr(0, kMaxTextBytes));
  writer.write(message.terms.type);
  writer.write(message.terms.mtu);
  writer.write(message.terms.slot_bytes);
  writer.write(static_cast<uint8_t>(message.terms.equal_frames));
  writer.write(message.nonce);
  writer.write(message.endpoint.lid);
  writer.write(message.endpoint.number);
  writer.write(message.endpoint.psn);
  writer.write(message.endpoint.gid.raw);
  writer.write(message.endpoint.has_gid);
  writer.write(message.endpoint.slot_count);
  return writer.take();
}

Result<VerbsMessage> decode_verbs_message(ByteView bytes) {
  ByteReader reader(bytes);
  VerbsMessage message;
  SHOAL_TRY(auto magic, reader.read<uint32_t>());
  if (magic != kMagic) return fail(ErrorCode::malformed, "not a message about RDMA of this version");
  SHOAL_TRY(auto refused, reader.read<uint8_t>());
  SHOAL_TRY(auto code, reader.read_text(kMaxTextBytes));
  SHOAL_TRY(auto text, reader.read_text(kMaxTextBytes));
  SHOAL_TRY(auto hint, reader.read_text(kMaxTextBytes));
  if (refused != 0) {
    message.refusal = Error{error_code_from_string(code), std::string(text), std::string(hint)};
  }
  SHOAL_TRY(message.terms.type, reader.read<verbs::QueuePairType>());
  SHOAL_TRY(message.terms.mtu, reader.read<verbs::Mtu>());
  SHOAL_TRY(message.terms.slot_bytes, reader.read<uint32_t>());
  SHOAL_TRY(auto equal_frames, reader.read<uint8_t>());
  message.terms.equal_frames = equal_frames != 0;
  SHOAL_TRY(message.nonce, reader.read<uint64_t>());
  SHOAL_TRY(message.endpoint.lid, reader.read<uint16_t>());
  SHOAL_TRY(message.endpoint.number, reader.read<uint32_t>());
  SHOAL_TRY(message.endpoint.psn, reader.read<uint32_t>());
  SHOAL_TRY(message.endpoint.gid.raw, (reader.read<std::array<uint8_t, 16>>()));
  SHOAL_TRY(message.endpoint.has_gid, reader.read<uint8_t>());
  SHOAL_TRY(message.endpoint.slot_count, reader.read<uint32_t>());
  if (reader.remaining() != 0 || !sensible(message.terms) || message.endpoint.slot_count > kMaxSlots) {
    return fail(ErrorCode::malformed, "a message about RDMA that makes no sense");
  }
  return message;
}

Result<VerbsIntroduction> introduce_verbs(Link& tcp, const Result<std::shared_ptr<const VerbsDevice>>& device,
                                          TimePoint deadline) {
  Introduction talk(tcp, deadline);
  auto refused = [&] { return VerbsIntroduction{nullptr, 0, 0, 0, talk.refusal()}; };

  VerbsMessage offer;
  offer.nonce = random_u64();
  offer.refusal = refusal_of(device);
  Result<std::unique_ptr<VerbsQueue>> queue = nullptr;
  if (device) {
    queue = best_queue(*device, offer.terms);
    offer.refusal = refusal_of(queue);
  }
  SHOAL_TRY(VerbsMessage peer_offer, talk.round(offer));
  if (talk.refusal()) return refused();

  VerbsMessage place;
  if (VerbsTerms terms = both_can(offer.terms, peer_offer.terms); terms != offer.terms) {
    queue->reset();  // first, lest it be the device's last one
    queue = VerbsQueue::create(*device, terms);
  }
  place.refusal = refusal_of(queue);
  if (queue) place.endpoint = (*queue)->endpoint();
  SHOAL_TRY(VerbsMessage peer_place, talk.round(place));
  if (!talk.refusal() && peer_place.endpoint.slot_count < 2) {
    return fail(ErrorCode::malformed,
                fmt::format("{} offers {} RECVs", tcp.peer(), peer_place.endpoint.slot_count));
  }
  if (talk.refusal()) return refused();

  VerbsMessage connected;
  connected.refusal = refusal_of((*queue)->connect(peer_place.endpoint));
  SHOAL_TRY(VerbsMessage peer_connected, talk.round(connected));
  if (talk.refusal()) return refused();

  VerbsMessage started;
  started.refusal = refusal_of((*queue)->start());
  SHOAL_TRY(VerbsMessage peer_started, talk.round(started));
  if (talk.refusal()) return refused();
  return VerbsIntroduction{
      std::move(*queue), peer_place.endpoint.slot_count, offer.nonce, peer_offer.nonce, {}};
}

}  // namespace shoal::link
