// Bytes from a peer as a Step and as a StepResult: read or refused, and what was read writes the same bytes
// again.
#include <algorithm>
#include <cstdlib>

#include "runtime/step.h"

namespace {

template <class Message>
void check(shoal::ByteView bytes) {
  shoal::ByteReader reader(bytes);
  const auto message = Message::decode(reader);
  if (!message) return;
  shoal::ByteWriter writer;
  message->encode(writer);
  if (!std::ranges::equal(writer.bytes(), bytes.first(reader.offset()))) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const shoal::ByteView bytes(reinterpret_cast<const std::byte*>(data), size);
  check<shoal::runtime::Step>(bytes);
  check<shoal::runtime::StepResult>(bytes);
  return 0;
}
