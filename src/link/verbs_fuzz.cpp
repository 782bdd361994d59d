// What a peer says while two sides agree on a queue pair.
#include "base/assert.h"
#include "link/verbs_bootstrap.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace shoal;
  using namespace shoal::link;
  auto message = decode_verbs_message({reinterpret_cast<const std::byte*>(data), size});
  if (!message) return 0;
  auto again = decode_verbs_message(encode_verbs_message(*message));
  SHOAL_ASSERT(again && again->terms == message->terms && again->endpoint.gid == message->endpoint.gid);
  return 0;
}
