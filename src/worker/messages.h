// What a node and its worker say to each other over their Unix socket. On the wire a message is a u32 length,
// a u8 kind and a body, length counting kind and body. The node is trusted no more than the worker: decoding
// treats both ends' bytes as hostile.
//
//   node → worker: LoadRequest, ConnectRequest (for each rank to call), Step (rank 0), ShutDown
//   worker → node: Listening (whom others call), Progress, Loaded, Ready, StepResult (rank 0), Failed
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "engine/engine.h"
#include "runtime/stage_frame.h"
#include "runtime/step.h"

namespace shoal::worker {

// Whom a rank talks to. Ranks are numbered stage by stage; the first of a stage leads it. Leaders form a
// ring: hidden rows go from stage to stage, results from the last leader to rank 0, which hands them to its
// node. A leader hands its steps on to the others of its stage, and all of them add up what each computed.
struct RankPeers {
  std::vector<uint32_t> group = {0};  // the ranks of the stage in order, the rank itself among them
  std::optional<uint32_t> previous = {}, next = {};  // of a leader, where there are several stages
  std::vector<uint32_t> calls = {}, called_by = {};  // every rank above is in one of them
};

// What one rank of an instance's world has to be. A world of one rank has no links.
struct LoadRequest {
  std::string model_path;
  engine::StageRange stage;
  engine::TensorShard shard;
  engine::KvConfig kv;
  uint32_t threads = 0;  // 0: all usable cores
  std::string isa;       // empty: the best this CPU has
  std::string instance;  // with epoch and secret: who may connect to our Link
  uint32_t epoch = 0;
  std::string secret;  // shared by the ranks of this epoch; a peer without it is refused
  uint32_t rank = 0;
  uint32_t rank_count = 1;
  RankPeers peers = {};
  runtime::WireFormat wire = runtime::WireFormat::f32;  // of what we send to the next stage
  std::vector<std::string>
      listen_addresses;  // where other ranks may reach us; "0.0.0.0" or addresses of this node
};

struct Endpoint {
  std::string address;  // numeric IPv4 or IPv6
  uint16_t port = 0;
};

struct ConnectRequest {  // one for each of RankPeers::calls
  uint32_t peer = 0;
  std::vector<Endpoint> endpoints;  // of that rank, tried in order
};
struct ShutDown {};

struct Listening {
  uint16_t port = 0;
};
struct Progress {
  float fraction = 0;
};
struct Loaded {
  engine::EngineMemory memory;
};
struct Ready {};
struct Failed {
  Error error;
};

using NodeMessage = std::variant<LoadRequest, ConnectRequest, runtime::Step, ShutDown>;
using WorkerMessage = std::variant<Listening, Progress, Loaded, Ready, runtime::StepResult, Failed>;

inline constexpr size_t kLengthBytes = 4;

// With the length in front.
Bytes encode(const NodeMessage& message);
Bytes encode(const WorkerMessage& message);

// The length that a message begins with. limit_exceeded over limits::kMaxControlMessageBytes, malformed for
// 0.
Result<uint32_t> decode_length(ByteView prefix);
// Without the length.
Result<NodeMessage> decode_node_message(ByteView message);
Result<WorkerMessage> decode_worker_message(ByteView message);

}  // namespace shoal::worker
