// What a node has measured, as parts of its NodeFact: how fast its processor meets weights of each class, and
// what lies between it and each other node. Plain values with a JSON form; what is read is hostile (facts.h).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "cluster/bus.h"

namespace shoal::cluster {

// The kernels' rates for one class of weights, all cores together. Which types a class has: serving/probe.h.
struct WeightRate {
  std::string weights;                  // "q8", "q4", "k", "f16", ...
  double prefill_flops_per_second = 0;  // many rows at once; a multiply-add is two
  double decode_bytes_per_second = 0;   // of packed weights, one row at a time
};

// A directed path from this node to another, as the system routes what is sent to `peer_address`.
struct LinkFact {
  NodeId peer;
  std::string local_address, peer_address;  // numeric
  std::string kind;                         // of our interface: "loopback", "ethernet", "wifi", ...
  uint32_t speed_mbps = 0;                  // of our interface, as the system has it; 0: it does not say
  double rtt_p50_us = 0, rtt_p99_us = 0;    // of 32 bytes there and back
  double bytes_per_second = 0;              // to the peer
  int64_t measured_at = 0;                  // Unix seconds by this node's clock
};

JsonObject to_json(const WeightRate& rate);
JsonObject to_json(const LinkFact& link);

// Members "weight_rates" and "links" of a NodeFact; absent ones are empty.
Result<std::vector<WeightRate>> weight_rates_from_json(const JsonObject& node_fact);
Result<std::vector<LinkFact>> links_from_json(const JsonObject& node_fact);

// Of these links, the best to each node in turn: the least time for a message of some kilobytes.
std::vector<LinkFact> best_links(const std::vector<LinkFact>& links);

}  // namespace shoal::cluster
