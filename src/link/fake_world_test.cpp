// The rules and the wire of the fake provider.
#include "link/fake_world.h"

#include <cerrno>
#include <cstring>
#include <fmt/format.h>
#include <gtest/gtest.h>

namespace shoal::link {

using verbs::QueuePairState;
using verbs::QueuePairType;

FakeWorld::FakeWorld(const FakeVerbsOptions& world_options)
    : options(world_options), random(world_options.seed) {
  for (const std::string& address : options.addresses) {
    devices.push_back({fmt::format("rdma_en{}", devices.size()), gid_of_address(address).value(), true, 0});
  }
}

FakeWorld::~FakeWorld() {
  if (!pairs.empty() || !regions.empty() || !others.empty()) {
    broken(fmt::format("left behind: {} queue pairs, {} regions, {} others", pairs.size(), regions.size(),
                       others.size()));
  }
}

bool FakeWorld::refused(const char* symbol) {
  if (refusal_due != symbol) return false;
  refusal_due.clear();
  return true;
}

int FakeWorld::broken(const std::string& rule, int error) {
  breaks.push_back(rule);
  if (!breaks_expected) ADD_FAILURE() << "a rule of verbs was broken: " << rule;
  return error;
}

uint32_t FakeWorld::cost(uint32_t bytes) const {
  return options.thunderbolt ? std::max(frames(bytes), 1u) : 1;
}

int FakeWorld::modify(FakePair& pair, const verbs::QueuePairAttributes& attributes, int mask) {
  bool reliable = pair.type == QueuePairType::rc;
  QueuePairState from{};
  int needed = verbs::kSetState;
  switch (attributes.state) {
    case QueuePairState::init:
      needed |= verbs::kSetPkeyIndex | verbs::kSetPort | verbs::kSetAccess;
      from = QueuePairState::reset;
      break;
    case QueuePairState::rtr:
      needed |= verbs::kSetPath | verbs::kSetPathMtu | verbs::kSetDestination | verbs::kSetReceivePsn;
      if (reliable) needed |= verbs::kSetMaxDestinationReads | verbs::kSetMinRnrTimer;
      from = QueuePairState::init;
      break;
    case QueuePairState::rts:
      needed |= verbs::kSetSendPsn;
      if (reliable) {
        needed |= verbs::kSetTimeout | verbs::kSetRetries | verbs::kSetRnrRetries | verbs::kSetMaxReads;
      }
      from = QueuePairState::rtr;
      break;
    default:
      return broken("a queue pair was sent to a state that no link needs");
  }
  if (pair.state != from) return broken("a queue pair skipped a state");
  if (mask != needed)
    return broken(fmt::format("the mask of a transition is {:#x}, not {:#x}", mask, needed));
  if (attributes.state == QueuePairState::init && attributes.port != 1)
    return broken("port 1 is the only one");
  if (attributes.state == QueuePairState::rtr) {
    bool known = attributes.path.is_global == 1 && attributes.path.route.source_gid_index == 1 &&
                 attributes.path.port == 1 && attributes.path.route.hop_limit != 0;
    if (!known) return EINVAL;
    if (options.thunderbolt && attributes.path_mtu != verbs::Mtu::bytes_1024)
      return broken("the MTU is 1024");
    pair.path = attributes;
  }
  if (attributes.state == QueuePairState::rts) pair.path.send_psn = attributes.send_psn;
  pair.state = attributes.state;
  return 0;
}

int FakeWorld::post(FakePair& pair, std::deque<FakeRequest>& queue, uint32_t capacity, uint64_t id,
                    const verbs::Piece* pieces, int piece_count) {
  if (piece_count != 1) return broken("a request has one piece");
  auto region = regions.find(pieces->lkey);
  if (region == regions.end()) return broken("a request names no region");
  auto begin = reinterpret_cast<uint64_t>(region->second->address);
  if (pieces->address < begin || pieces->address + pieces->length > begin + region->second->length) {
    return broken("a request reaches beyond its region");
  }
  auto* data = reinterpret_cast<std::byte*>(pieces->address);
  for (const auto* posted : {&pair.sends, &pair.receives}) {
    for (const FakeRequest& other : *posted) {
      if (data < other.data + other.bytes && other.data < data + pieces->length) {
        return broken("memory was posted twice");
      }
    }
  }
  uint32_t used = cost(pieces->length);
  for (const FakeRequest& other : queue) used += cost(other.bytes);
  if (used > capacity) {
    if (!queue.empty()) queue.front().data[0] ^= std::byte{0x40};  // an overrun corrupts
    return broken("a queue was overrun", ENOMEM);
  }
  queue.push_back({id, data, pieces->length});
  return 0;
}

void FakeWorld::complete(verbs::CompletionQueue* queue, uint64_t id, verbs::CompletionStatus status,
                         uint32_t opcode, uint32_t bytes, uint32_t number) {
  auto& completions = *static_cast<FakeCompletions*>(queue);
  if (completions.ready.size() >= static_cast<size_t>(completions.entries)) {
    broken("a completion queue was overrun");
    return;
  }
  verbs::Completion done;
  done.id = id;
  done.status = status;
  done.opcode = opcode;
  done.byte_count = bytes;
  done.queue_pair_number = number;
  completions.ready.push_back(done);
}

void FakeWorld::pump() {
  for (auto& [number, pair] : pairs) {
    while (!frozen && !pair->sends.empty() && deliver(*pair) == Outcome::gone) {
    }
  }
}

FakeWorld::Outcome FakeWorld::deliver(FakePair& from) {
  auto found = pairs.find(from.path.destination_number);
  FakePair* to = found == pairs.end() ? nullptr : found->second;
  bool reliable = from.type == QueuePairType::rc;
  bool connected = to != nullptr && to->path.destination_number == from.number && to->type == from.type &&
                   to->device->gid == from.path.path.route.destination &&
                   to->path.receive_psn == from.path.send_psn &&
                   (to->state == QueuePairState::rtr || to->state == QueuePairState::rts);
  FakeRequest send = from.sends.front();
  auto finish = [&](verbs::CompletionStatus status) {
    from.sends.pop_front();
    complete(from.send_queue, send.id, status, verbs::kCompletedSend, send.bytes, from.number);
    return Outcome::gone;
  };
  if (std::exchange(failure_due, false)) return finish(verbs::CompletionStatus::retries_exceeded);
  if (drops_due != 0) {
    --drops_due;
    return finish(verbs::CompletionStatus::success);
  }
  if (!connected) {
    return finish(reliable ? verbs::CompletionStatus::retries_exceeded : verbs::CompletionStatus::success);
  }
  if (to->receives.empty()) {
    if (reliable) return Outcome::wait;  // it is sent again until there is one
    ++unmatched;
    broken("a SEND met no RECV");
    return finish(verbs::CompletionStatus::success);
  }
  if (!reliable && happens(options.drop)) return finish(verbs::CompletionStatus::success);
  FakeRequest receive = to->receives.front();
  to->receives.pop_front();
  bool fits = options.thunderbolt ? frames(send.bytes) == frames(receive.bytes) : send.bytes <= receive.bytes;
  if (!fits) {
    broken(fmt::format("a SEND of {} bytes met a RECV of {}", send.bytes, receive.bytes));
    complete(to->receive_queue, receive.id, verbs::CompletionStatus::local_length, verbs::kCompletedReceive,
             0, to->number);
    return finish(reliable ? verbs::CompletionStatus::remote_invalid_request
                           : verbs::CompletionStatus::success);
  }
  std::memcpy(receive.data, send.data, send.bytes);
  if (damage_offset && *damage_offset < send.bytes) {
    receive.data[*std::exchange(damage_offset, std::nullopt)] ^= std::byte{1};
  }
  if (happens(options.damage)) receive.data[random() % std::min(send.bytes, 200u)] ^= std::byte{0x10};
  ++delivered;
  complete(to->receive_queue, receive.id, verbs::CompletionStatus::success, verbs::kCompletedReceive,
           send.bytes, to->number);
  return finish(verbs::CompletionStatus::success);
}

}  // namespace shoal::link
