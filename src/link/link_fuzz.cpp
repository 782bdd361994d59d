// Bytes of a stranger: as a hello, and as frames of an authenticated peer that went mad.
#include <algorithm>
#include <cstring>

#include "link/frame.h"
#include "link/tcp_handshake.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace shoal;
  using namespace shoal::link;
  ByteView bytes(reinterpret_cast<const std::byte*>(data), size);
  if (auto hello = decode_hello(bytes)) proves(Credentials{"model", 1, "secret", 0, 1}, *hello);

  static const auto pool = BufferPool::create(1 << 20);
  FrameQueues queues("fuzzer", 16);
  while (queues.next()) {
  }
  while (bytes.size() >= kHeaderBytes) {
    // With a right CRC now and then, or nothing would get past it.
    HeaderBytes raw;
    std::memcpy(raw.data(), bytes.data(), kHeaderBytes);
    if (raw[7] != std::byte{0}) {
      FrameHeader header;
      std::memcpy(&header.step, raw.data() + 8, sizeof(header.step));
      header.type = static_cast<FrameType>(raw[4]);
      header.channel = static_cast<uint8_t>(raw[5]);
      header.sequence = static_cast<uint32_t>(raw[16]);
      header.length = static_cast<uint32_t>(raw[20]);
      raw = encode_header(header);
    }
    bytes = bytes.subspan(kHeaderBytes);
    auto header = queues.open(raw);
    if (!header) return 0;
    auto payload = pool->allocate(header->length);
    if (!payload) return 0;
    size_t given = std::min(payload->size(), bytes.size());
    if (given != 0) std::memcpy(payload->data(), bytes.data(), given);
    bytes = bytes.subspan(given);
    if (!queues.deliver(*header, std::move(*payload))) return 0;
    queues.take(header->channel);
    while (queues.next()) {
    }
  }
  return 0;
}
