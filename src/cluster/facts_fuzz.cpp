// Facts of other nodes: any bytes are read or refused, and what was read survives being told on.
#include <cstddef>
#include <cstdint>

#include "base/assert.h"
#include "cluster/facts.h"

using namespace shoal;
using namespace shoal::cluster;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  auto object = parse_json_object({reinterpret_cast<const char*>(data), size}, "input");
  if (!object) return 0;
  if (auto node = node_fact_from_json(*object)) SHOAL_ASSERT(node_fact_from_json(to_json(*node)).has_value());
  if (auto fact = instance_fact_from_json(*object))
    SHOAL_ASSERT(instance_fact_from_json(to_json(*fact)).has_value());
  return 0;
}
