#include "worker/messages.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>

#include "base/limits.h"

namespace shoal::worker {
namespace {

enum class NodeKind : uint8_t { load = 1, connect, step, shut_down };
enum class WorkerKind : uint8_t { listening = 1, progress, loaded, ready, step_result, failed };

constexpr uint64_t kMaxPathBytes = 4096;
constexpr uint64_t kMaxNameBytes = 256;
constexpr uint64_t kMaxAddresses = 256;
constexpr uint64_t kMaxErrorBytes = 64 * limits::kKiB;

std::unexpected<Error> refuse(const std::string& what) {
  return fail(ErrorCode::malformed, "worker message: " + what);
}

Result<bool> read_flag(ByteReader& reader) {
  SHOAL_TRY(auto value, reader.read<uint8_t>());
  if (value > 1) return refuse(fmt::format("flag {}", value));
  return value == 1;
}

void write_numbers(ByteWriter& writer, const std::vector<uint32_t>& numbers) {
  writer.write(static_cast<uint32_t>(numbers.size()));
  for (const uint32_t number : numbers) writer.write(number);
}

Result<std::vector<uint32_t>> read_numbers(ByteReader& reader) {
  SHOAL_TRY(auto count, reader.read<uint32_t>());
  if (count > limits::kMaxNodes) return refuse(fmt::format("a list of {}", count));
  std::vector<uint32_t> numbers(count);
  for (uint32_t& number : numbers) {
    SHOAL_TRY(number, reader.read<uint32_t>());
  }
  return numbers;
}

Result<std::vector<uint32_t>> read_ranks(ByteReader& reader, uint32_t rank_count) {
  SHOAL_TRY(auto ranks, read_numbers(reader));
  for (const uint32_t rank : ranks) {
    if (rank >= rank_count) return refuse(fmt::format("a rank {} of {}", rank, rank_count));
  }
  return ranks;
}

// No rank as the one behind the last.
void write_rank(ByteWriter& writer, std::optional<uint32_t> rank, uint32_t rank_count) {
  writer.write(rank.value_or(rank_count));
}

Result<std::optional<uint32_t>> read_rank(ByteReader& reader, uint32_t rank_count) {
  SHOAL_TRY(auto rank, reader.read<uint32_t>());
  if (rank > rank_count) return refuse(fmt::format("a rank {} of {}", rank, rank_count));
  return rank == rank_count ? std::nullopt : std::optional(rank);
}

void encode_peers(ByteWriter& writer, const RankPeers& peers, uint32_t rank_count) {
  write_numbers(writer, peers.group);
  write_rank(writer, peers.previous, rank_count);
  write_rank(writer, peers.next, rank_count);
  write_numbers(writer, peers.calls);
  write_numbers(writer, peers.called_by);
}

// What links are made of must fit together: the rank finds itself in its group, and each other one among
// those that call or are called.
Result<RankPeers> decode_peers(ByteReader& reader, const LoadRequest& load) {
  RankPeers peers;
  SHOAL_TRY(peers.group, read_ranks(reader, load.rank_count));
  SHOAL_TRY(peers.previous, read_rank(reader, load.rank_count));
  SHOAL_TRY(peers.next, read_rank(reader, load.rank_count));
  SHOAL_TRY(peers.calls, read_ranks(reader, load.rank_count));
  SHOAL_TRY(peers.called_by, read_ranks(reader, load.rank_count));
  const auto is_in = [](const std::vector<uint32_t>& ranks, uint32_t rank) {
    return std::ranges::count(ranks, rank) == 1;
  };
  const std::vector<uint32_t>& shares = load.shard.shares;
  bool good = (shares.empty() || shares.size() == load.shard.count) &&
              std::ranges::find(shares, 0u) == shares.end() && is_in(peers.group, load.rank) &&
              std::ranges::is_sorted(peers.group) && peers.group.size() == load.shard.count &&
              load.shard.rank < load.shard.count && peers.group[load.shard.rank] == load.rank;
  for (const uint32_t rank : peers.group) {
    good = good && (rank == load.rank || is_in(rank > load.rank ? peers.calls : peers.called_by, rank));
  }
  good = good && (!peers.next || is_in(peers.calls, *peers.next));
  good = good && (!peers.previous || is_in(peers.called_by, *peers.previous));
  if (!good) return refuse(fmt::format("rank {} has peers that contradict each other", load.rank));
  return peers;
}

void encode_body(ByteWriter& writer, const LoadRequest& load) {
  writer.write(NodeKind::load);
  writer.write_text(load.model_path);
  writer.write(load.stage.first_layer);
  writer.write(load.stage.end_layer);
  writer.write(static_cast<uint8_t>(load.stage.embeds));
  writer.write(static_cast<uint8_t>(load.stage.heads));
  writer.write(load.shard.rank);
  writer.write(load.shard.count);
  write_numbers(writer, load.shard.shares);
  writer.write(load.kv.type);
  writer.write(load.kv.page_tokens);
  writer.write(load.kv.page_count);
  writer.write(load.kv.state_slots);
  writer.write(load.threads);
  writer.write_text(load.isa);
  writer.write_text(load.instance);
  writer.write(load.epoch);
  writer.write_text(load.secret);
  writer.write(load.rank);
  writer.write(load.rank_count);
  encode_peers(writer, load.peers, load.rank_count);
  writer.write(load.wire);
  writer.write(static_cast<uint32_t>(load.listen_addresses.size()));
  for (const std::string& address : load.listen_addresses) writer.write_text(address);
}

Result<LoadRequest> decode_load(ByteReader& reader) {
  LoadRequest load;
  SHOAL_TRY(load.model_path, reader.read_text(kMaxPathBytes));
  SHOAL_TRY(load.stage.first_layer, reader.read<uint32_t>());
  SHOAL_TRY(load.stage.end_layer, reader.read<uint32_t>());
  SHOAL_TRY(load.stage.embeds, read_flag(reader));
  SHOAL_TRY(load.stage.heads, read_flag(reader));
  SHOAL_TRY(load.shard.rank, reader.read<uint32_t>());
  SHOAL_TRY(load.shard.count, reader.read<uint32_t>());
  SHOAL_TRY(load.shard.shares, read_numbers(reader));
  SHOAL_TRY(auto type, reader.read<uint8_t>());
  if (type > static_cast<uint8_t>(engine::KvType::q8)) return refuse(fmt::format("KV type {}", type));
  load.kv.type = static_cast<engine::KvType>(type);
  SHOAL_TRY(load.kv.page_tokens, reader.read<uint32_t>());
  SHOAL_TRY(load.kv.page_count, reader.read<uint32_t>());
  SHOAL_TRY(load.kv.state_slots, reader.read<uint32_t>());
  if (load.kv.state_slots > limits::kMaxActiveSequences)
    return refuse(fmt::format("{} state slots", load.kv.state_slots));
  SHOAL_TRY(load.threads, reader.read<uint32_t>());
  SHOAL_TRY(load.isa, reader.read_text(kMaxNameBytes));
  SHOAL_TRY(load.instance, reader.read_text(kMaxNameBytes));
  SHOAL_TRY(load.epoch, reader.read<uint32_t>());
  SHOAL_TRY(load.secret, reader.read_text(kMaxNameBytes));
  SHOAL_TRY(load.rank, reader.read<uint32_t>());
  SHOAL_TRY(load.rank_count, reader.read<uint32_t>());
  if (load.rank_count == 0 || load.rank_count > limits::kMaxNodes || load.rank >= load.rank_count) {
    return refuse(fmt::format("rank {} of {}", load.rank, load.rank_count));
  }
  SHOAL_TRY(load.peers, decode_peers(reader, load));
  SHOAL_TRY(auto wire, reader.read<uint8_t>());
  if (wire > static_cast<uint8_t>(runtime::WireFormat::bf16))
    return refuse(fmt::format("wire format {}", wire));
  load.wire = static_cast<runtime::WireFormat>(wire);
  SHOAL_TRY(auto count, reader.read<uint32_t>());
  if (count > kMaxAddresses) return refuse(fmt::format("{} addresses", count));
  for (uint32_t i = 0; i < count; ++i) {
    SHOAL_TRY(auto address, reader.read_text(kMaxNameBytes));
    load.listen_addresses.emplace_back(address);
  }
  return load;
}

void encode_body(ByteWriter& writer, const ConnectRequest& connect) {
  writer.write(NodeKind::connect);
  writer.write(connect.peer);
  writer.write(static_cast<uint32_t>(connect.endpoints.size()));
  for (const Endpoint& endpoint : connect.endpoints) {
    writer.write_text(endpoint.address);
    writer.write(endpoint.port);
  }
}

Result<ConnectRequest> decode_connect(ByteReader& reader) {
  ConnectRequest connect;
  SHOAL_TRY(connect.peer, reader.read<uint32_t>());
  SHOAL_TRY(auto count, reader.read<uint32_t>());
  if (count > kMaxAddresses) return refuse(fmt::format("{} endpoints", count));
  for (uint32_t i = 0; i < count; ++i) {
    Endpoint endpoint;
    SHOAL_TRY(endpoint.address, reader.read_text(kMaxNameBytes));
    SHOAL_TRY(endpoint.port, reader.read<uint16_t>());
    connect.endpoints.push_back(std::move(endpoint));
  }
  return connect;
}

void encode_body(ByteWriter& writer, const runtime::Step& step) {
  writer.write(NodeKind::step);
  step.encode(writer);
}
void encode_body(ByteWriter& writer, const ShutDown&) {
  writer.write(NodeKind::shut_down);
}

void encode_body(ByteWriter& writer, const Listening& listening) {
  writer.write(WorkerKind::listening);
  writer.write(listening.port);
}
void encode_body(ByteWriter& writer, const Progress& progress) {
  writer.write(WorkerKind::progress);
  writer.write(progress.fraction);
}
void encode_body(ByteWriter& writer, const Loaded& loaded) {
  writer.write(WorkerKind::loaded);
  writer.write(loaded.memory.weight_bytes);
  writer.write(loaded.memory.kv_bytes);
  writer.write(loaded.memory.scratch_bytes);
}
void encode_body(ByteWriter& writer, const Ready&) {
  writer.write(WorkerKind::ready);
}
void encode_body(ByteWriter& writer, const runtime::StepResult& result) {
  writer.write(WorkerKind::step_result);
  result.encode(writer);
}
void encode_body(ByteWriter& writer, const Failed& failed) {
  writer.write(WorkerKind::failed);
  writer.write_text(to_string(failed.error.code));
  writer.write_text(std::string_view(failed.error.message).substr(0, kMaxErrorBytes));
  writer.write_text(std::string_view(failed.error.hint).substr(0, kMaxErrorBytes));
}

Result<Progress> decode_progress(ByteReader& reader) {
  SHOAL_TRY(auto fraction, reader.read<float>());
  if (!(fraction >= 0 && fraction <= 1)) return refuse(fmt::format("progress {}", fraction));
  return Progress{fraction};
}

Result<Loaded> decode_loaded(ByteReader& reader) {
  Loaded loaded;
  SHOAL_TRY(loaded.memory.weight_bytes, reader.read<uint64_t>());
  SHOAL_TRY(loaded.memory.kv_bytes, reader.read<uint64_t>());
  SHOAL_TRY(loaded.memory.scratch_bytes, reader.read<uint64_t>());
  return loaded;
}

Result<Failed> decode_failed(ByteReader& reader) {
  Failed failed;
  SHOAL_TRY(auto code, reader.read_text(kMaxNameBytes));
  failed.error.code = error_code_from_string(code);
  SHOAL_TRY(failed.error.message, reader.read_text(kMaxErrorBytes));
  SHOAL_TRY(failed.error.hint, reader.read_text(kMaxErrorBytes));
  return failed;
}

Result<NodeMessage> decode_body(NodeKind kind, ByteReader& reader) {
  switch (kind) {
    case NodeKind::load:
      return decode_load(reader);
    case NodeKind::connect:
      return decode_connect(reader);
    case NodeKind::step:
      return runtime::Step::decode(reader);
    case NodeKind::shut_down:
      return ShutDown{};
  }
  return refuse(fmt::format("unknown kind {} from the node", static_cast<unsigned>(kind)));
}

Result<WorkerMessage> decode_body(WorkerKind kind, ByteReader& reader) {
  switch (kind) {
    case WorkerKind::listening: {
      SHOAL_TRY(auto port, reader.read<uint16_t>());
      return Listening{port};
    }
    case WorkerKind::progress:
      return decode_progress(reader);
    case WorkerKind::loaded:
      return decode_loaded(reader);
    case WorkerKind::ready:
      return Ready{};
    case WorkerKind::step_result:
      return runtime::StepResult::decode(reader);
    case WorkerKind::failed:
      return decode_failed(reader);
  }
  return refuse(fmt::format("unknown kind {} from the worker", static_cast<unsigned>(kind)));
}

template <class Message>
Bytes encode_message(const Message& message) {
  ByteWriter writer;
  writer.write(uint32_t{0});
  std::visit([&](const auto& body) { encode_body(writer, body); }, message);
  Bytes bytes = writer.take();
  auto length = static_cast<uint32_t>(bytes.size() - kLengthBytes);
  std::memcpy(bytes.data(), &length, sizeof(length));
  return bytes;
}

template <class Kind, class Message>
Result<Message> decode_message(ByteView bytes) {
  ByteReader reader(bytes);
  SHOAL_TRY(Kind kind, reader.read<Kind>());
  SHOAL_TRY(Message message, decode_body(kind, reader));
  if (reader.remaining() != 0) return refuse(fmt::format("{} bytes too many", reader.remaining()));
  return message;
}

}  // namespace

Bytes encode(const NodeMessage& message) {
  return encode_message(message);
}
Bytes encode(const WorkerMessage& message) {
  return encode_message(message);
}

Result<uint32_t> decode_length(ByteView prefix) {
  ByteReader reader(prefix);
  SHOAL_TRY(auto length, reader.read<uint32_t>());
  if (length == 0) return refuse("it is empty");
  if (length > limits::kMaxControlMessageBytes) {
    return fail(ErrorCode::limit_exceeded, fmt::format("worker message of {} bytes, more than {}", length,
                                                       limits::kMaxControlMessageBytes));
  }
  return length;
}

Result<NodeMessage> decode_node_message(ByteView message) {
  return decode_message<NodeKind, NodeMessage>(message);
}
Result<WorkerMessage> decode_worker_message(ByteView message) {
  return decode_message<WorkerKind, WorkerMessage>(message);
}

}  // namespace shoal::worker
