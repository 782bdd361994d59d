// Messages of a mad node or worker, and frames of a mad neighbour.
#include <cstring>

#include "runtime/stage_frame.h"
#include "worker/messages.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace shoal;
  ByteView bytes(reinterpret_cast<const std::byte*>(data), size);
  if (auto message = worker::decode_node_message(bytes)) worker::encode(*message);
  if (auto message = worker::decode_worker_message(bytes)) worker::encode(*message);

  static const auto pool = link::BufferPool::create(64 << 20);
  auto payload = pool->allocate(size);
  if (!payload) return 0;
  if (size != 0) std::memcpy(payload->data(), data, size);
  link::Frame frame{runtime::kStepChannel, 0, std::move(*payload)};
  if (size >= 24)
    std::memcpy(&frame.step, data + 16, sizeof(frame.step));  // where a step without times begins
  [[maybe_unused]] auto step = runtime::read_stage_frame(frame);
  [[maybe_unused]] auto result = runtime::read_result_frame(frame);
  return 0;
}
