#include "serving/link_survey.h"

#include <algorithm>
#include <fmt/format.h>

#include "base/log.h"
#include "base/network_interfaces.h"
#include "base/system.h"
#include "serving/codec.h"

namespace shoal::serving {
namespace {

constexpr Duration kLookInterval = milliseconds(250);
constexpr Duration kAnswerTime = seconds(2);
constexpr Duration kRefresh = seconds(60);
constexpr size_t kPeersPerRefresh = 8;  // with more, all of their figures are told around less often
constexpr int64_t kShareOfLink = 200;   // a measurement fills the path for less than this part of the time
constexpr Duration kBusyPause =
    milliseconds(50);  // and as much again by chance, until a busy node is asked again
constexpr Duration kFailurePause = seconds(2);
constexpr uint32_t kMaxDoublings = 5;
constexpr size_t kMaxAddresses = 4;  // of a peer; its best come first

Duration up_to(Duration most) {
  return Duration(static_cast<int64_t>(random_u64() % static_cast<uint64_t>(most.count())));
}

cluster::LinkFact describe(const cluster::NodeId& peer, const std::string& address,
                           const PathFigures& figures) {
  const std::vector<NetworkInterface> interfaces = network_interfaces();
  InterfaceType type;
  if (interface_with(interfaces, address) != nullptr)
    type.kind = InterfaceKind::loopback;  // our own machine
  else if (const NetworkInterface* ours = interface_with(interfaces, figures.local_address))
    type = ours->type;
  return {.peer = peer,
          .local_address = figures.local_address,
          .peer_address = address,
          .kind = std::string(to_string(type.kind)),
          .speed_mbps = type.speed_mbps,
          .rtt_p50_us = figures.rtt_p50_us,
          .rtt_p99_us = figures.rtt_p99_us,
          .bytes_per_second = figures.bytes_per_second,
          .measured_at = unix_seconds()};
}

template <class T>
Result<T> read_whole(ByteView bytes, Result<T> (*read)(ByteReader&)) {
  ByteReader reader(bytes);
  SHOAL_TRY(T message, read(reader));
  SHOAL_TRY_VOID(check_end(reader));
  return message;
}

}  // namespace

Bytes ProbeAskMessage::encode() const {
  ByteWriter writer;
  writer.write(id);
  return writer.take();
}

Result<ProbeAskMessage> ProbeAskMessage::decode(ByteView bytes) {
  return read_whole<ProbeAskMessage>(bytes, [](ByteReader& reader) -> Result<ProbeAskMessage> {
    SHOAL_TRY(const uint64_t id, reader.read<uint64_t>());
    return ProbeAskMessage{id};
  });
}

Bytes ProbeOfferMessage::encode() const {
  ByteWriter writer;
  writer.write(id);
  writer.write(static_cast<uint8_t>(accepted));
  writer.append(nonce);
  return writer.take();
}

Result<ProbeOfferMessage> ProbeOfferMessage::decode(ByteView bytes) {
  return read_whole<ProbeOfferMessage>(bytes, [](ByteReader& reader) -> Result<ProbeOfferMessage> {
    ProbeOfferMessage message;
    SHOAL_TRY(message.id, reader.read<uint64_t>());
    SHOAL_TRY(message.accepted, read_flag(reader));
    SHOAL_TRY(message.nonce, reader.read<ProbeNonce>());
    return message;
  });
}

Bytes ProbeDoneMessage::encode() const {
  return {nonce.begin(), nonce.end()};
}

Result<ProbeDoneMessage> ProbeDoneMessage::decode(ByteView bytes) {
  return read_whole<ProbeDoneMessage>(bytes, [](ByteReader& reader) -> Result<ProbeDoneMessage> {
    SHOAL_TRY(const ProbeNonce nonce, reader.read<ProbeNonce>());
    return ProbeDoneMessage{nonce};
  });
}

LinkSurvey::LinkSurvey(boost::asio::io_context& io, cluster::NodeId self, std::vector<std::string> addresses,
                       Ports ports)
    : self_(std::move(self)), ports_(std::move(ports)), measuring_(io, 1) {
  auto responder = LinkProbeResponder::start(addresses);
  if (responder)
    responder_ = *std::move(responder);
  else
    log_warning("node", "others cannot measure their links to this node: {}", responder.error().text());
}

void LinkSurvey::tick(TimePoint now) {
  if (stopped_) return;
  if (now >= next_look_) follow_members(now);
  if (ports_.busy()) {
    if (cancelled_) *cancelled_ = true;
    if (responder_) responder_->forget_all();
    return;
  }
  if (question_ && !question_->measuring && now >= question_->deadline) {
    const cluster::NodeId silent = question_->peer;
    question_.reset();
    try_again(silent, kFailurePause);
  }
  if (!question_ && !(responder_ && responder_->busy())) ask(now);
}

void LinkSurvey::follow_members(TimePoint now) {
  next_look_ = now + kLookInterval;
  bool lost_links = false;
  std::map<cluster::NodeId, Peer> peers;
  for (const cluster::NodeFact& node : ports_.nodes()) {
    if (node.id == self_ || node.probe_port == 0) continue;
    auto known = peers_.extract(node.id);
    Peer& peer = peers[node.id];
    if (!known.empty()) peer = std::move(known.mapped());
    if (peer.addresses == node.addresses && peer.port == node.probe_port) continue;
    lost_links = lost_links || !peer.links.empty();
    peer = {.addresses = node.addresses, .port = node.probe_port, .due = now, .links = {}};
  }
  for (const auto& [id, gone] : peers_) lost_links = lost_links || !gone.links.empty();
  peers_ = std::move(peers);
  if (lost_links) publish();
}

void LinkSurvey::ask(TimePoint now) {
  const auto next = std::ranges::min_element(peers_, {}, [](const auto& one) { return one.second.due; });
  if (next == peers_.end() || next->second.due > now) return;
  question_ = Question{.peer = next->first, .id = next_id_++, .deadline = now + kAnswerTime};
  ports_.send(next->first, kProbeAskTopic, ProbeAskMessage{question_->id}.encode());
}

void LinkSurvey::on_ask(const cluster::NodeId& sender, const ProbeAskMessage& message) {
  // Two that ask each other: the lower id has its turn first.
  const bool crossed = question_ && !question_->measuring && question_->peer == sender && sender < self_;
  const bool free =
      !stopped_ && responder_ && !responder_->busy() && (!question_ || crossed) && !ports_.busy();
  ProbeOfferMessage offer{.id = message.id, .accepted = free};
  if (free) {
    if (crossed) question_.reset();
    if (crossed) try_again(sender, kBusyPause);
    offer.nonce = responder_->allow();
  }
  ports_.send(sender, kProbeOfferTopic, offer.encode());
}

void LinkSurvey::on_offer(const cluster::NodeId& sender, const ProbeOfferMessage& message) {
  const bool ours = !stopped_ && question_ && !question_->measuring && question_->peer == sender &&
                    question_->id == message.id && peers_.contains(sender);
  if (ours && message.accepted && !ports_.busy()) {
    question_->measuring = true;
    return measure(sender, message.nonce);
  }
  if (message.accepted) ports_.send(sender, kProbeDoneTopic, ProbeDoneMessage{message.nonce}.encode());
  if (!ours) return;
  question_.reset();
  try_again(sender, kBusyPause);
}

void LinkSurvey::on_done(const ProbeDoneMessage& message) {
  if (responder_) responder_->forget(message.nonce);
}

void LinkSurvey::measure(const cluster::NodeId& peer, const ProbeNonce& nonce) {
  cancelled_ = std::make_shared<std::atomic<bool>>(false);
  const Peer& to = peers_.at(peer);
  std::vector<std::string> addresses = to.addresses;
  if (addresses.size() > kMaxAddresses) addresses.resize(kMaxAddresses);
  measuring_.run(
      [peer, nonce, addresses = std::move(addresses), port = to.port, cancelled = cancelled_] {
        const SystemClock clock;
        const TimePoint begin = clock.now();
        Outcome outcome;
        for (const std::string& address : addresses) {
          const Result<PathFigures> figures = measure_path(address, port, nonce, *cancelled);
          if (figures)
            outcome.links.push_back(describe(peer, address, *figures));
          else
            log_debug("node", "no measurement of {}: {}", address, figures.error().message);
          if (*cancelled) break;
        }
        outcome.took = clock.now() - begin;
        outcome.cancelled = *cancelled;
        return outcome;
      },
      [this, peer, nonce](Outcome outcome) { finish(peer, nonce, std::move(outcome)); });
}

void LinkSurvey::finish(const cluster::NodeId& peer, const ProbeNonce& nonce, Outcome outcome) {
  cancelled_.reset();
  question_.reset();
  ports_.send(peer, kProbeDoneTopic, ProbeDoneMessage{nonce}.encode());
  const auto found = peers_.find(peer);
  if (found == peers_.end()) return;
  if (outcome.cancelled) return try_again(peer, kBusyPause);
  if (outcome.links.empty()) {
    found->second.failures += 1;
    return try_again(peer, kFailurePause * (1 << std::min(found->second.failures, kMaxDoublings)));
  }
  found->second.failures = 0;
  found->second.links = std::move(outcome.links);
  const Duration refresh = kRefresh * (1 + peers_.size() / kPeersPerRefresh);
  try_again(peer, std::max(refresh, outcome.took * kShareOfLink));
  publish();
}

// By chance up to twice as late, so that nodes that were refused do not meet again.
void LinkSurvey::try_again(const cluster::NodeId& peer, Duration after) {
  const auto found = peers_.find(peer);
  if (found != peers_.end()) found->second.due = clock_.now() + after + up_to(after);
}

void LinkSurvey::publish() {
  std::vector<cluster::LinkFact> all;
  for (const auto& [id, peer] : peers_) all.insert(all.end(), peer.links.begin(), peer.links.end());
  ports_.publish(std::move(all));
}

void LinkSurvey::stop() {
  if (stopped_) return;
  stopped_ = true;
  if (cancelled_) *cancelled_ = true;
  measuring_.close();
  responder_.reset();
}

}  // namespace shoal::serving
