// What `shoal nodes` and `shoal links` print of measurements.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cli/ask_commands.h"

namespace shoal::cli {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

Json json(std::string_view text) {
  const auto parsed = parse_json(text, "test");
  EXPECT_TRUE(parsed) << text;
  return parsed ? *parsed : Json();
}

constexpr std::string_view kCluster = R"({"self":"aa","nodes":[
  {"id":"aa","name":"ada","weight_rates":[{"weights":"q8","prefill_flops_per_second":6.5e11},
                                          {"weights":"bf16","prefill_flops_per_second":1.2e11}]},
  {"id":"bb","name":"bob","weight_rates":[{"weights":"q8","prefill_flops_per_second":3e10}]}],
  "links":[
  {"from":"aa","from_name":"ada","to":"bb","to_name":"bob","local_address":"10.0.0.1","peer_address":"10.0.0.2",
   "kind":"ethernet","speed_mbps":2500,"rtt_p50_us":152.4,"rtt_p99_us":1512.0,"bytes_per_second":2.9e8,
   "measured_at":1790000000,"age_seconds":12},
  {"from":"bb","from_name":"bob","to":"aa","to_name":"ada","local_address":"10.1.0.2","peer_address":"10.1.0.1",
   "kind":"wifi","speed_mbps":0,"rtt_p50_us":20100,"rtt_p99_us":33000,"bytes_per_second":6.25e6,
   "measured_at":1790000000,"age_seconds":250}]})";

TEST(LinksTable, IsMadeForPeople) {
  EXPECT_EQ(links_table(json(kCluster)),
            "FROM  TO   KIND         SPEED  RTT P50  RTT P99  BANDWIDTH    AGE  BETWEEN\n"
            "ada   bob  Ethernet  2.5 Gb/s   152 us  1.51 ms  2.32 Gb/s   12 s  10.0.0.1 - 10.0.0.2\n"
            "bob   ada  Wi-Fi            -  20.1 ms  33.0 ms  50.0 Mb/s  4 min  10.1.0.2 - 10.1.0.1\n");
}

TEST(LinksTable, SaysWhyItIsEmpty) {
  EXPECT_THAT(links_table(json(R"({"nodes":[{"name":"ada"}],"links":[]})")), HasSubstr("alone"));
  EXPECT_THAT(links_table(json(R"({"nodes":[{"name":"ada"},{"name":"bob"}],"links":[]})")),
              HasSubstr("measured"));
}

TEST(LinksTable, TakesAnyJson) {
  for (
      const std::string_view odd :
      {"{}", "[]", "5", R"({"links":5})", R"({"links":[5,null,{}]})",
       R"({"links":[{"kind":7,"speed_mbps":"x","rtt_p50_us":-1,"bytes_per_second":1e300,"age_seconds":-5}]})"})
    EXPECT_FALSE(links_table(json(odd)).empty()) << odd;
  EXPECT_THAT(links_table(json(R"({"links":[{"from_name":"a\u001b[2Jb"}]})")), Not(HasSubstr("\x1b")));
}

TEST(NodesTable, ShowsRatesByKindOfWeights) {
  const std::string text = nodes_table(json(kCluster));
  EXPECT_THAT(text, HasSubstr("PREFILL GFLOP/S   q8  bf16\n"));
  EXPECT_THAT(text, HasSubstr("ada              650   120\n"));
  EXPECT_THAT(text, HasSubstr("bob               30     -\n"));
}

TEST(NodesTable, ShowsNoMoreKindsThanAScreenHas) {
  JsonArray rates;
  for (int i = 0; i < 64; ++i)
    rates.push_back(JsonObject{{"weights", fmt::format("kind{}", i)}, {"prefill_flops_per_second", 1e9}});
  const std::string text =
      nodes_table(JsonObject{{"nodes", JsonArray{JsonObject{{"name", "a"}, {"weight_rates", rates}}}}});
  EXPECT_THAT(text, HasSubstr("kind11"));
  EXPECT_THAT(text, Not(HasSubstr("kind12")));
}

}  // namespace
}  // namespace shoal::cli
