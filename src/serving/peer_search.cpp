#include "serving/peer_search.h"

#include <algorithm>
#include <utility>

#include "serving/codec.h"

namespace shoal::serving {
namespace {

bool holds(const cluster::NodeFact& node, const std::string& digest) {
  return std::ranges::find(node.models, digest, &cluster::HeldModel::digest) != node.models.end();
}

}  // namespace

Bytes SeekMessage::encode() const {
  ByteWriter writer;
  writer.write(id);
  writer.write_text(name);
  writer.write_text(digest);
  return writer.take();
}

Result<SeekMessage> SeekMessage::decode(ByteView bytes) {
  ByteReader reader(bytes);
  SeekMessage message;
  SHOAL_TRY(message.id, reader.read<uint64_t>());
  SHOAL_TRY(message.name, reader.read_text(kMaxNameBytes));
  SHOAL_TRY(message.digest, reader.read_text(kMaxNameBytes));
  SHOAL_TRY_VOID(check_end(reader));
  return message;
}

Bytes SoughtMessage::encode() const {
  ByteWriter writer;
  writer.write(id);
  writer.write(static_cast<uint8_t>(found));
  return writer.take();
}

Result<SoughtMessage> SoughtMessage::decode(ByteView bytes) {
  ByteReader reader(bytes);
  SoughtMessage message;
  SHOAL_TRY(message.id, reader.read<uint64_t>());
  SHOAL_TRY(message.found, read_flag(reader));
  SHOAL_TRY_VOID(check_end(reader));
  return message;
}

PeerSearch::PeerSearch(cluster::NodeId self, Nodes nodes, const Clock& clock, Send send)
    : self_(std::move(self)), nodes_(std::move(nodes)), clock_(clock), send_(std::move(send)) {}

void PeerSearch::seek(const std::string& name, const std::string& digest, std::function<void()> done) {
  Search search{
      .digest = digest, .waits_for = {}, .deadline = clock_.now() + kPatience, .done = std::move(done)};
  for (const cluster::NodeFact& node : nodes_())
    if (node.id != self_ && !holds(node, digest)) search.waits_for.insert(node.id);
  if (search.waits_for.empty()) return search.done();
  const uint64_t id = next_id_++;
  const Bytes question = SeekMessage{.id = id, .name = name, .digest = digest}.encode();
  for (const cluster::NodeId& node : search.waits_for) send_(node, kSeekTopic, question);
  searches_.emplace(id, std::move(search));
}

void PeerSearch::on_sought(const cluster::NodeId& sender, const SoughtMessage& message) {
  const auto search = searches_.find(message.id);
  // One that found it is waited for until its fact says so: facts and messages overtake each other.
  if (search != searches_.end() && !message.found) search->second.waits_for.erase(sender);
}

void PeerSearch::tick(TimePoint now) {
  if (searches_.empty()) return;
  const std::vector<cluster::NodeFact> nodes = nodes_();
  std::vector<std::function<void()>> ended;
  for (auto next = searches_.begin(); next != searches_.end();) {
    Search& search = next->second;
    std::erase_if(search.waits_for, [&](const cluster::NodeId& id) {
      const auto node = std::ranges::find(nodes, id, &cluster::NodeFact::id);
      return node == nodes.end() || holds(*node, search.digest);
    });
    if (!search.waits_for.empty() && now < search.deadline) {
      ++next;
      continue;
    }
    ended.push_back(std::move(search.done));
    next = searches_.erase(next);
  }
  for (const std::function<void()>& done : ended) done();
}

void PeerSearch::end_all() {
  for (const auto& [id, search] : std::exchange(searches_, {})) search.done();
}

}  // namespace shoal::serving
