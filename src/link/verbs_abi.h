// The part of the verbs ABI that a Link uses, declared here so that no header of a verbs library is needed to
// build. Field order, sizes and values are those of the public <infiniband/verbs.h> (rdma-core, ABI 1.1),
// which librdma.dylib of macOS keeps; verbs_library_test compares them with that header where it is
// installed. Objects that the library allocates (device, context, queue pair, …) are declared only as far as
// we read them; objects that we allocate are whole. Private to verbs_*.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace shoal::link::verbs {

struct Device;  // only ever a handle
struct CompletionChannel;
struct SharedReceiveQueue;
struct Context;

struct alignas(8) Gid {
  std::array<uint8_t, 16> raw{};
  bool operator==(const Gid&) const = default;
};

enum class PortState : uint32_t { down = 1, active = 4 };
enum class Mtu : uint32_t { bytes_256 = 1, bytes_512 = 2, bytes_1024 = 3, bytes_2048 = 4, bytes_4096 = 5 };
enum class QueuePairType : uint32_t { rc = 2, uc = 3 };
enum class QueuePairState : uint32_t { reset, init, rtr, rts, sqd, sqe, error };

inline constexpr int kAccessLocalWrite = 1;
inline constexpr int kAccessRemoteWrite = 2;
inline constexpr int kAccessRemoteRead = 4;

struct PortAttributes {
  PortState state{};
  Mtu max_mtu{};
  Mtu active_mtu{};
  int32_t gid_count = 0;
  uint32_t capabilities = 0;
  uint32_t max_message_bytes = 0;
  uint32_t bad_pkeys = 0;
  uint32_t qkey_violations = 0;
  uint16_t pkey_count = 0;
  uint16_t lid = 0;
  uint16_t subnet_manager_lid = 0;
  uint8_t lmc = 0;
  uint8_t max_vl = 0;
  uint8_t subnet_manager_sl = 0;
  uint8_t subnet_timeout = 0;
  uint8_t init_type_reply = 0;
  uint8_t active_width = 0;
  uint8_t active_speed = 0;
  uint8_t physical_state = 0;
  uint8_t link_layer = 0;
  uint8_t flags = 0;
  uint16_t capabilities_2 = 0;
  uint32_t later[4]{};  // newer libraries know more fields; ours to overwrite
};
static_assert(offsetof(PortAttributes, lid) == 34 && offsetof(PortAttributes, link_layer) == 46);

struct ProtectionDomain {
  Context* context;
  uint32_t handle;
};
struct MemoryRegion {
  Context* context;
  ProtectionDomain* domain;
  void* address;
  size_t length;
  uint32_t handle;
  uint32_t lkey;
  uint32_t rkey;
};
static_assert(offsetof(MemoryRegion, lkey) == 36);

struct CompletionQueue {
  Context* context;
  CompletionChannel* channel;
  void* user;
  uint32_t handle;
  int32_t entries;
};
struct QueuePair {
  Context* context;
  void* user;
  ProtectionDomain* domain;
  CompletionQueue* send_queue;
  CompletionQueue* receive_queue;
  SharedReceiveQueue* shared_queue;
  uint32_t handle;
  uint32_t number;
  QueuePairState state;
  QueuePairType type;
};
static_assert(offsetof(QueuePair, number) == 52 && offsetof(QueuePair, state) == 56);

struct QueuePairCapacity {
  uint32_t send_requests = 0;
  uint32_t receive_requests = 0;
  uint32_t send_pieces = 0;
  uint32_t receive_pieces = 0;
  uint32_t inline_bytes = 0;
};
struct QueuePairCreation {
  void* user = nullptr;
  CompletionQueue* send_queue = nullptr;
  CompletionQueue* receive_queue = nullptr;
  SharedReceiveQueue* shared_queue = nullptr;
  QueuePairCapacity capacity;
  QueuePairType type = QueuePairType::uc;
  int32_t signal_all = 0;
};
static_assert(sizeof(QueuePairCreation) == 64);

struct GlobalRoute {
  Gid destination;
  uint32_t flow_label = 0;
  uint8_t source_gid_index = 0;
  uint8_t hop_limit = 0;
  uint8_t traffic_class = 0;
};
struct AddressVector {
  GlobalRoute route;
  uint16_t destination_lid = 0;
  uint8_t service_level = 0;
  uint8_t source_path_bits = 0;
  uint8_t static_rate = 0;
  uint8_t is_global = 0;
  uint8_t port = 0;
};
static_assert(sizeof(GlobalRoute) == 24 && sizeof(AddressVector) == 32);

struct QueuePairAttributes {
  QueuePairState state{};
  QueuePairState current_state{};
  Mtu path_mtu{};
  uint32_t migration_state = 0;
  uint32_t qkey = 0;
  uint32_t receive_psn = 0;
  uint32_t send_psn = 0;
  uint32_t destination_number = 0;
  uint32_t access = 0;
  QueuePairCapacity capacity;
  AddressVector path;
  AddressVector alternate_path;
  uint16_t pkey_index = 0;
  uint16_t alternate_pkey_index = 0;
  uint8_t notify_drained = 0;
  uint8_t draining = 0;
  uint8_t max_reads = 0;
  uint8_t max_destination_reads = 0;
  uint8_t min_rnr_timer = 0;
  uint8_t port = 0;
  uint8_t timeout = 0;
  uint8_t retries = 0;
  uint8_t rnr_retries = 0;
  uint8_t alternate_port = 0;
  uint8_t alternate_timeout = 0;
  uint32_t rate_limit = 0;
};
static_assert(offsetof(QueuePairAttributes, path) == 56 && offsetof(QueuePairAttributes, pkey_index) == 120);
static_assert(offsetof(QueuePairAttributes, port) == 129 && sizeof(QueuePairAttributes) == 144);

// Which fields of QueuePairAttributes a transition sets.
inline constexpr int kSetState = 1 << 0;
inline constexpr int kSetAccess = 1 << 3;
inline constexpr int kSetPkeyIndex = 1 << 4;
inline constexpr int kSetPort = 1 << 5;
inline constexpr int kSetPath = 1 << 7;
inline constexpr int kSetPathMtu = 1 << 8;
inline constexpr int kSetTimeout = 1 << 9;
inline constexpr int kSetRetries = 1 << 10;
inline constexpr int kSetRnrRetries = 1 << 11;
inline constexpr int kSetReceivePsn = 1 << 12;
inline constexpr int kSetMaxReads = 1 << 13;
inline constexpr int kSetMinRnrTimer = 1 << 15;
inline constexpr int kSetSendPsn = 1 << 16;
inline constexpr int kSetMaxDestinationReads = 1 << 17;
inline constexpr int kSetDestination = 1 << 20;

struct Piece {  // a scatter/gather element
  uint64_t address = 0;
  uint32_t length = 0;
  uint32_t lkey = 0;
};
static_assert(sizeof(Piece) == 16);

inline constexpr uint32_t kOpcodeSend = 2;
inline constexpr uint32_t kSendSignaled = 1 << 1;

struct SendRequest {
  uint64_t id = 0;
  SendRequest* next = nullptr;
  Piece* pieces = nullptr;
  int32_t piece_count = 0;
  uint32_t opcode = kOpcodeSend;
  uint32_t flags = 0;
  uint32_t immediate = 0;
  std::array<uint64_t, 11> other_operations{};  // of READ, WRITE, atomics, windows: never used
};
static_assert(offsetof(SendRequest, immediate) == 36 && sizeof(SendRequest) == 128);

struct ReceiveRequest {
  uint64_t id = 0;
  ReceiveRequest* next = nullptr;
  Piece* pieces = nullptr;
  int32_t piece_count = 0;
};
static_assert(sizeof(ReceiveRequest) == 32);

enum class CompletionStatus : uint32_t {
  success = 0,
  local_length = 1,
  local_protection = 4,
  flushed = 5,
  remote_invalid_request = 9,
  retries_exceeded = 12,
  rnr_retries_exceeded = 13,
};
inline constexpr uint32_t kCompletedSend = 0;
inline constexpr uint32_t kCompletedReceive = 128;

struct Completion {
  uint64_t id = 0;
  CompletionStatus status{};
  uint32_t opcode = 0;
  uint32_t vendor_error = 0;
  uint32_t byte_count = 0;
  uint32_t immediate = 0;
  uint32_t queue_pair_number = 0;
  uint32_t source_queue_pair = 0;
  uint32_t flags = 0;
  uint16_t pkey_index = 0;
  uint16_t source_lid = 0;
  uint8_t service_level = 0;
  uint8_t destination_path_bits = 0;
};
static_assert(sizeof(Completion) == 48);

// The data path has no symbols: these three are reached through the context, at their places among 32
// pointers.
struct ContextOperations {
  void* before_poll[11];
  int (*poll_completions)(CompletionQueue*, int count, Completion*);
  void* before_send[13];
  int (*post_send)(QueuePair*, SendRequest*, SendRequest** refused);
  int (*post_receive)(QueuePair*, ReceiveRequest*, ReceiveRequest** refused);
  void* after_receive[5];
};
static_assert(sizeof(ContextOperations) == 32 * sizeof(void*));

struct Context {
  Device* device;
  ContextOperations operations;
};

}  // namespace shoal::link::verbs
