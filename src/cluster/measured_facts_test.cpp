// What nodes tell of their measurements: bounds, damage, and what the planner makes of it.
#include "cluster/measured_facts.h"

#include <functional>
#include <gtest/gtest.h>
#include <random>

#include "cluster/facts.h"
#include "cluster/planner_input.h"

namespace shoal::cluster {
namespace {

const NodeId kA = "aaaaaaaaaaaaaaaa", kB = "bbbbbbbbbbbbbbbb", kC = "cccccccccccccccc";

LinkFact link_to(const NodeId& peer, double rtt_us, double bytes_per_second, std::string kind = "ethernet") {
  return {.peer = peer,
          .local_address = "10.0.0.1",
          .peer_address = "10.0.0.2",
          .kind = std::move(kind),
          .speed_mbps = 1000,
          .rtt_p50_us = rtt_us,
          .rtt_p99_us = 2 * rtt_us,
          .bytes_per_second = bytes_per_second,
          .measured_at = 1'790'000'000};
}

NodeFact measured_node(const NodeId& id) {
  NodeFact fact;
  fact.id = id;
  fact.decode_bytes_per_second = 40e9;
  fact.prefill_flops_per_second = 600e9;
  fact.weight_rates = {{"q8", 600e9, 40e9}, {"f32", 90e9, 39e9}};
  fact.probe_port = 4711;
  fact.links = {link_to(kB, 150.5, 117e6), link_to(kC, 3000, 20e6, "wifi")};
  return fact;
}

Result<NodeFact> changed(const std::function<void(JsonObject&)>& change) {
  JsonObject object = to_json(measured_node(kA));
  change(object);
  SHOAL_TRY(const JsonObject read, parse_json_object(to_text(object), "test"));
  return node_fact_from_json(read);
}
JsonObject& first(JsonObject& fact, std::string_view list) {
  return fact[list].as_array()[0].as_object();
}

TEST(MeasuredFacts, SurviveTheirJsonForm) {
  const auto read = changed([](JsonObject&) {});
  ASSERT_TRUE(read.has_value()) << read.error().text();
  EXPECT_EQ(to_text(to_json(*read)), to_text(to_json(measured_node(kA))));
  EXPECT_EQ(read->probe_port, 4711);
  ASSERT_EQ(read->links.size(), 2u);
  EXPECT_EQ(read->links[1].kind, "wifi");
  EXPECT_EQ(read->links[0].rtt_p50_us, 150.5);
  EXPECT_EQ(read->links[0].measured_at, 1'790'000'000);
  ASSERT_EQ(read->weight_rates.size(), 2u);
  EXPECT_EQ(read->weight_rates[1].prefill_flops_per_second, 90e9);
}

TEST(MeasuredFacts, OfOlderVersionsAreEmpty) {
  const auto read = changed([](JsonObject& fact) {
    for (const char* name : {"links", "weight_rates", "probe_port"}) fact.erase(name);
  });
  ASSERT_TRUE(read.has_value());
  EXPECT_TRUE(read->links.empty());
  EXPECT_TRUE(read->weight_rates.empty());
  EXPECT_EQ(read->probe_port, 0);
}

TEST(MeasuredFacts, ThatBreakTheirFormAreErrors) {
  const std::vector<std::function<void(JsonObject&)>> changes = {
      [](JsonObject& fact) { fact["links"] = 7; },
      [](JsonObject& fact) { fact["links"] = JsonArray{7}; },
      [](JsonObject& fact) { fact["links"] = JsonArray(1025, fact["links"].as_array()[0]); },
      [](JsonObject& fact) { first(fact, "links")["peer"] = "../../etc"; },
      [](JsonObject& fact) { first(fact, "links").erase("peer"); },
      [](JsonObject& fact) { first(fact, "links")["kind"] = std::string(1000, 'x'); },
      [](JsonObject& fact) { first(fact, "links")["local_address"] = std::string(1000, '1'); },
      [](JsonObject& fact) { first(fact, "links")["rtt_p50_us"] = -1; },
      [](JsonObject& fact) { first(fact, "links")["rtt_p99_us"] = "fast"; },
      [](JsonObject& fact) { first(fact, "links")["bytes_per_second"] = -0.5; },
      [](JsonObject& fact) { first(fact, "links")["speed_mbps"] = 1ll << 40; },
      [](JsonObject& fact) { first(fact, "links")["measured_at"] = -1; },
      [](JsonObject& fact) { fact["probe_port"] = 65536; },
      [](JsonObject& fact) { fact["weight_rates"] = JsonArray(65, fact["weight_rates"].as_array()[0]); },
      [](JsonObject& fact) { first(fact, "weight_rates")["prefill_flops_per_second"] = -1; },
      [](JsonObject& fact) { first(fact, "weight_rates")["weights"] = JsonArray{}; },
  };
  for (size_t i = 0; i < changes.size(); ++i) EXPECT_FALSE(changed(changes[i]).has_value()) << i;
}

TEST(MeasuredFacts, MutatedBytesNeverDoMoreThanFail) {
  std::mt19937 random(7);
  const std::string good = to_text(to_json(measured_node(kA)));
  size_t failed = 0;
  for (int round = 0; round < 4000; ++round) {
    std::string text = good;
    for (uint32_t i = 0; i < 1 + random() % 4; ++i)
      text[random() % text.size()] = static_cast<char>(random());
    const auto object = parse_json_object(text, "test");
    const auto read = object ? node_fact_from_json(*object) : std::unexpected(object.error());
    failed += read ? 0 : 1;
    if (read) {
      EXPECT_TRUE(node_fact_from_json(to_json(*read)).has_value()) << text;
    }
  }
  EXPECT_GT(failed, 1000u);
}

TEST(MeasuredFacts, OfSeveralAddressesTheQuickestCounts) {
  std::vector<LinkFact> links = {link_to(kB, 3000, 20e6, "wifi"), link_to(kB, 200, 110e6),
                                 link_to(kC, 100, 1e9), link_to(kB, 900, 110e6)};
  links[1].peer_address = "192.168.1.2";
  const std::vector<LinkFact> best = best_links(links);
  ASSERT_EQ(best.size(), 2u);
  EXPECT_EQ(best[0].peer, kB);
  EXPECT_EQ(best[0].peer_address, "192.168.1.2");
  EXPECT_EQ(best[1].peer, kC);
}

TEST(PlannerInput, MeasuredPairsCountAndOneEndStandsForTheOther) {
  std::map<NodeId, Member> members;
  members[kA].fact = measured_node(kA);
  members[kB].fact = NodeFact{};
  members[kB].fact->id = kB;
  members[kB].fact->links = {link_to(kA, 170, 100e6), link_to("dddddddddddddddd", 1, 1)};
  members[kC];  // nothing heard of it yet
  std::vector<planner::Device> devices(3);
  devices[0].node = kA, devices[1].node = kB, devices[2].node = kC;
  const auto links = measured_links(devices, members);
  ASSERT_EQ(links.size(), 4u);
  const auto find = [&](uint32_t from, uint32_t to) {
    for (const planner::LinkFigures& link : links)
      if (link.from == from && link.to == to) return link;
    ADD_FAILURE() << from << " to " << to;
    return planner::LinkFigures{};
  };
  EXPECT_DOUBLE_EQ(find(0, 1).round_trip_seconds, 150.5e-6);
  EXPECT_DOUBLE_EQ(find(1, 0).round_trip_seconds, 170e-6);
  EXPECT_DOUBLE_EQ(find(0, 2).bytes_per_second, 20e6);
  EXPECT_DOUBLE_EQ(find(2, 0).bytes_per_second, 20e6);
  EXPECT_EQ(find(2, 0).kind, planner::LinkKind::wifi);
  EXPECT_DOUBLE_EQ(find(0, 2).round_trip_p99_seconds, 6e-3);
}

TEST(PlannerInput, DevicesHaveTheRatesOfTheModelsWeights) {
  const View view(measured_node(kA));
  PlaceRequest request;
  request.weights = "f32";
  ASSERT_EQ(view.devices(request).size(), 1u);
  EXPECT_EQ(view.devices(request)[0].prefill_flops_per_second, 90e9);
  EXPECT_EQ(view.devices(request)[0].decode_bytes_per_second, 39e9);
  request.weights.clear();
  EXPECT_EQ(view.devices(request)[0].prefill_flops_per_second, 600e9);
}

TEST(PlannerInput, RatesAreOfTheModelsWeightsWhereTheyWereMeasured) {
  const NodeFact node = measured_node(kA);
  EXPECT_EQ(rate_with(node, "f32").prefill_flops_per_second, 90e9);
  EXPECT_EQ(rate_with(node, "mxfp4").prefill_flops_per_second, 600e9);
  EXPECT_EQ(rate_with(node, "").decode_bytes_per_second, 40e9);
}

}  // namespace
}  // namespace shoal::cluster
