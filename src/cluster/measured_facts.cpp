#include "cluster/measured_facts.h"

#include <map>

#include "base/limits.h"
#include "cluster/fact_fields.h"

namespace shoal::cluster {
namespace {

constexpr size_t kMaxWeightRates = 64;
constexpr size_t kMaxLinks = 4 * limits::kMaxNodes;
constexpr double kMessageBytes = 16.0 * limits::kKiB;  // a hidden row of a middling model

Result<WeightRate> weight_rate(const JsonObject& object) {
  WeightRate rate;
  SHOAL_TRY(rate.weights, text(object, "weights"));
  SHOAL_TRY(rate.prefill_flops_per_second, measure(object, "prefill_flops_per_second"));
  SHOAL_TRY(rate.decode_bytes_per_second, measure(object, "decode_bytes_per_second"));
  return rate;
}

Result<LinkFact> link_fact(const JsonObject& object) {
  LinkFact link;
  SHOAL_TRY(link.peer, id(object, "peer"));
  SHOAL_TRY(link.local_address, text(object, "local_address"));
  SHOAL_TRY(link.peer_address, text(object, "peer_address"));
  SHOAL_TRY(link.kind, text(object, "kind"));
  SHOAL_TRY(link.speed_mbps, integer<uint32_t>(object, "speed_mbps"));
  SHOAL_TRY(link.rtt_p50_us, measure(object, "rtt_p50_us"));
  SHOAL_TRY(link.rtt_p99_us, measure(object, "rtt_p99_us"));
  SHOAL_TRY(link.bytes_per_second, measure(object, "bytes_per_second"));
  SHOAL_TRY(link.measured_at, integer<int64_t>(object, "measured_at", INT64_MAX));
  return link;
}

double message_seconds(const LinkFact& link) {
  const double transfer = link.bytes_per_second > 0 ? kMessageBytes / link.bytes_per_second : 1;
  return link.rtt_p50_us / 2e6 + transfer;
}

}  // namespace

JsonObject to_json(const WeightRate& rate) {
  return {{"weights", rate.weights},
          {"prefill_flops_per_second", rate.prefill_flops_per_second},
          {"decode_bytes_per_second", rate.decode_bytes_per_second}};
}

JsonObject to_json(const LinkFact& link) {
  return {{"peer", link.peer},
          {"local_address", link.local_address},
          {"peer_address", link.peer_address},
          {"kind", link.kind},
          {"speed_mbps", number(link.speed_mbps)},
          {"rtt_p50_us", link.rtt_p50_us},
          {"rtt_p99_us", link.rtt_p99_us},
          {"bytes_per_second", link.bytes_per_second},
          {"measured_at", link.measured_at}};
}

Result<std::vector<WeightRate>> weight_rates_from_json(const JsonObject& node_fact) {
  return list<WeightRate>(node_fact, "weight_rates", kMaxWeightRates,
                          of_object<WeightRate>("weight_rates", weight_rate));
}

Result<std::vector<LinkFact>> links_from_json(const JsonObject& node_fact) {
  return list<LinkFact>(node_fact, "links", kMaxLinks, of_object<LinkFact>("links", link_fact));
}

std::vector<LinkFact> best_links(const std::vector<LinkFact>& links) {
  std::map<NodeId, LinkFact> best;
  for (const LinkFact& link : links) {
    const auto [known, first] = best.try_emplace(link.peer, link);
    if (!first && message_seconds(link) < message_seconds(known->second)) known->second = link;
  }
  std::vector<LinkFact> result;
  for (auto& [peer, link] : best) result.push_back(std::move(link));
  return result;
}

}  // namespace shoal::cluster
