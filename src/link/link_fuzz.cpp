// Bytes of a stranger as a hello; as frames, and as shared memory, of an authenticated peer that went mad.
#include <algorithm>
#include <array>
#include <cstring>

#include "link/frame.h"
#include "link/shm_stream.h"
#include "link/tcp_handshake.h"

namespace shoal::link {
namespace {

// With a right CRC now and then, or nothing would get past it.
HeaderBytes header_from(ByteView bytes) {
  HeaderBytes raw;
  std::memcpy(raw.data(), bytes.data(), kHeaderBytes);
  if (raw[7] == std::byte{0}) return raw;
  FrameHeader header;
  std::memcpy(&header.step, raw.data() + 8, sizeof(header.step));
  header.type = static_cast<FrameType>(raw[4]);
  header.channel = static_cast<uint8_t>(raw[5]);
  header.sequence = static_cast<uint32_t>(raw[16]);
  header.length = static_cast<uint32_t>(raw[20]) << (static_cast<unsigned>(raw[21]) % 20);
  return encode_header(header);
}

void read_frames(ByteView bytes, const std::shared_ptr<BufferPool>& pool) {
  FrameQueues queues("fuzzer", 16);
  while (queues.next()) {
  }
  while (bytes.size() >= kHeaderBytes) {
    const HeaderBytes raw = header_from(bytes);
    bytes = bytes.subspan(kHeaderBytes);
    auto header = queues.open(raw);
    if (!header) return;
    auto payload = pool->allocate(header->length);
    if (!payload) return;
    size_t given = std::min(payload->size(), bytes.size());
    if (given != 0) std::memcpy(payload->data(), bytes.data(), given);
    bytes = bytes.subspan(given);
    if (!queues.deliver(*header, std::move(*payload))) return;
    queues.take(header->channel);
    while (queues.next()) {
    }
  }
}

// The peer writes 41 bytes by turns: how far it moves its positions, and what it writes at the reader's.
void read_ring(ByteView bytes, const std::shared_ptr<BufferPool>& pool) {
  constexpr size_t kRing = 4096, kMemory = kRingControlBytes + kRing;
  alignas(4096) static std::array<std::byte, 2 * kMemory> memory;
  memory.fill(std::byte{0});
  const auto incoming = std::span(memory).first(kMemory), outgoing = std::span(memory).last(kMemory);
  auto& in = *reinterpret_cast<RingControl*>(incoming.data());
  auto& out = *reinterpret_cast<RingControl*>(outgoing.data());
  ShmStream stream(outgoing, incoming, FileDescriptor(), "fuzzer", 16, pool);
  for (constexpr size_t kTurn = kHeaderBytes + 9; bytes.size() >= kTurn; bytes = bytes.subspan(kTurn)) {
    const HeaderBytes raw = header_from(bytes);
    const size_t place = (in.read + static_cast<size_t>(bytes[32]) * 16) % (kRing - kHeaderBytes);
    std::memcpy(incoming.data() + kRingControlBytes + place, raw.data(), kHeaderBytes);
    int16_t moves[4];
    std::memcpy(moves, bytes.data() + kHeaderBytes + 1, sizeof(moves));
    in.written += static_cast<uint64_t>(moves[0] / 8);
    out.read += static_cast<uint64_t>(moves[1] / 256);
    in.read += static_cast<uint64_t>(moves[2] / 4096);
    stream.watch(Interest::everything);
    if (!stream.receive_ready() || !stream.send_ready()) return;
    if (stream.queues().take(0) && stream.queues().has_room(1)) stream.queues().push({1, 0, Buffer()});
  }
}

}  // namespace
}  // namespace shoal::link

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace shoal;
  using namespace shoal::link;
  const ByteView bytes(reinterpret_cast<const std::byte*>(data), size);
  static const auto pool = BufferPool::create(1 << 20);
  if (auto hello = decode_hello(bytes)) proves(Credentials{"model", 1, "secret", 0, 1}, *hello);
  read_frames(bytes, pool);
  read_ring(bytes, pool);
  return 0;
}
