#include "link/collectives.h"

#include <bit>
#include <cstring>
#include <future>
#include <gtest/gtest.h>
#include <numeric>
#include <random>

#include "link/memory_link.h"
#include "link/tcp_link.h"

namespace shoal::link {
namespace {

constexpr Duration kPatience = seconds(60);
TimePoint in(Duration duration) {
  return std::chrono::steady_clock::now() + duration;
}

// Ranks with a wire between any two.
struct Group {
  explicit Group(uint32_t count, const LinkOptions& options = {}, bool unlike_delays = false) : ranks(count) {
    for (auto& rank : ranks) rank.links.resize(count);
    for (uint32_t a = 0; a < count; ++a) {
      for (uint32_t b = a + 1; b < count; ++b) {
        WireFaults faults;
        if (unlike_delays) faults.delay = microseconds(100 * ((7 * a + 3 * b) % 11));
        MemoryLinks links = make_memory_links(options, faults);
        ranks[a].links[b] = std::move(links.first);
        ranks[b].links[a] = std::move(links.second);
        wires.push_back(links.wire);
      }
    }
  }
  std::vector<Link*> peers(uint32_t rank) const {
    std::vector<Link*> peers;
    for (const auto& link : ranks[rank].links) peers.push_back(link.get());
    return peers;
  }
  // Calls work(collectives) on a thread for each rank; what each returned.
  template <class Work>
  auto run(const CollectiveOptions& options, Work work) {
    std::vector<std::future<std::invoke_result_t<Work, Collectives&>>> running;
    for (uint32_t rank = 0; rank < ranks.size(); ++rank) {
      running.push_back(std::async(std::launch::async, [this, rank, &options, &work] {
        Collectives collectives(peers(rank), options);
        return work(collectives);
      }));
    }
    std::vector<std::invoke_result_t<Work, Collectives&>> results;
    for (auto& result : running) results.push_back(result.get());
    return results;
  }

  struct Rank {
    std::vector<std::unique_ptr<Link>> links;
  };
  std::vector<Rank> ranks;
  std::vector<std::shared_ptr<MemoryWire>> wires;
};

// Replaces the wires of the group.
void connect_by_tcp(Group& group, const LinkOptions& options) {
  for (uint32_t a = 0; a < group.ranks.size(); ++a) {
    for (uint32_t b = a + 1; b < group.ranks.size(); ++b) {
      auto listener = TcpLinkListener::open({"127.0.0.1"}).value();
      const auto address = SocketAddress::parse("127.0.0.1", listener.port()).value();
      auto accepted = std::async(std::launch::async, [&] {
        return listener.accept({"group", 1, "secret", a, b}, in(kPatience), options).value();
      });
      group.ranks[b].links[a] =
          connect_tcp_link({address}, {"group", 1, "secret", b, a}, in(kPatience), options).value();
      group.ranks[a].links[b] = accepted.get();
    }
  }
}

std::vector<float> values_of(uint32_t rank, size_t count, uint32_t seed) {
  std::mt19937 random(seed * 100 + rank);
  std::uniform_real_distribution<float> magnitude(-20, 20);
  std::vector<float> values(count);
  for (float& value : values) value = std::ldexp(magnitude(random), static_cast<int>(random() % 24));
  return values;
}

std::vector<float> sum_in_rank_order(uint32_t ranks, size_t count, uint32_t seed) {
  std::vector<float> sum = values_of(0, count, seed);
  for (uint32_t rank = 1; rank < ranks; ++rank) {
    std::vector<float> values = values_of(rank, count, seed);
    for (size_t i = 0; i < count; ++i) sum[i] += values[i];
  }
  return sum;
}

bool same_bits(std::span<const float> left, std::span<const float> right) {
  return left.size() == right.size() &&
         (left.empty() || std::memcmp(left.data(), right.data(), left.size_bytes()) == 0);
}

// Every rank sums its values of each size; "" or what was wrong.
std::string check_sums(Group& group, const std::vector<size_t>& sizes, const CollectiveOptions& options) {
  const auto count = static_cast<uint32_t>(group.ranks.size());
  auto wrong = group.run(options, [&](Collectives& collectives) -> std::string {
    for (uint32_t i = 0; i < sizes.size(); ++i) {
      std::vector<float> values = values_of(collectives.rank(), sizes[i], i);
      if (auto done = collectives.all_reduce(values, in(kPatience)); !done) return done.error().text();
      if (!same_bits(values, sum_in_rank_order(count, sizes[i], i))) {
        return "other bits at size " + std::to_string(sizes[i]);
      }
    }
    return "";
  });
  for (const std::string& text : wrong) {
    if (!text.empty()) return text;
  }
  return "";
}

class CollectiveRanks : public testing::TestWithParam<uint32_t> {
 protected:
  uint32_t ranks() const { return GetParam(); }
};

TEST_P(CollectiveRanks, SumsHaveTheBitsOfTheSumInRankOrderAtEverySize) {
  std::mt19937 random(ranks());
  std::vector<size_t> sizes = {0, 1, 2, 3, ranks() - 1, ranks(), 4096, 8192, 8193, 65'537, 300'001};
  for (int i = 0; i < 6; ++i) sizes.push_back(1 + random() % 100'000);
  Group group(ranks());
  EXPECT_EQ(check_sums(group, sizes, {}), "");
}

TEST_P(CollectiveRanks, TheAlgorithmDoesNotShowInTheBits) {
  const std::vector<size_t> sizes = {1, 5, 1000, 20'000};
  Group group(ranks());
  const uint32_t everything = UINT32_MAX;
  EXPECT_EQ(
      check_sums(group, sizes,
                 {.chunk_bytes = 4096, .whole_sum_bytes_of_two = everything, .whole_sum_bytes = everything}),
      "");
  Group other(ranks());
  EXPECT_EQ(
      check_sums(other, sizes, {.chunk_bytes = 1000, .whole_sum_bytes_of_two = 0, .whole_sum_bytes = 0}), "");
}

TEST_P(CollectiveRanks, FramesMayBeLargerThanTheWindowAndArriveWhenTheyLike) {
  Group group(ranks(), {.window_units = 2}, true);
  EXPECT_EQ(check_sums(group, {1, 70'000, 10}, {.chunk_bytes = 100'000}), "");
}

TEST_P(CollectiveRanks, GathersUnevenCounts) {
  std::vector<uint32_t> counts(ranks());
  std::mt19937 random(ranks());
  for (uint32_t& count : counts) count = static_cast<uint32_t>(random() % 5000);
  counts[random() % ranks()] = 0;
  std::vector<float> expected;
  for (uint32_t rank = 0; rank < ranks(); ++rank) {
    for (float value : values_of(rank, counts[rank], 1)) expected.push_back(value);
  }
  Group group(ranks());
  auto same = group.run({.chunk_bytes = 4000}, [&](Collectives& collectives) {
    std::vector<float> all(expected.size(), -1);
    auto done = collectives.all_gather(values_of(collectives.rank(), counts[collectives.rank()], 1), all,
                                       counts, in(kPatience));
    return done && same_bits(all, expected);
  });
  EXPECT_EQ(same, std::vector<bool>(ranks(), true));
}

TEST_P(CollectiveRanks, ARootMayRunAheadOfTheOthers) {
  Group group(ranks(), {.window_units = 16}, true);
  constexpr uint32_t kRounds = 50;
  auto same = group.run({.chunk_bytes = 8000}, [&](Collectives& collectives) {
    for (uint32_t round = 0; round < kRounds; ++round) {
      const uint32_t root = round < kRounds / 2 ? 0 : round % ranks();
      const std::vector<float> expected = values_of(root, 5000 + round, round);
      std::vector<float> values = expected;
      if (root != collectives.rank()) std::ranges::fill(values, 0.0F);
      auto done = collectives.broadcast(root, std::as_writable_bytes(std::span(values)), in(kPatience));
      if (!done || !same_bits(values, expected)) return false;
    }
    return true;
  });
  EXPECT_EQ(same, std::vector<bool>(ranks(), true));
}

TEST_P(CollectiveRanks, ALostLinkEndsTheGroupOnEveryRank) {
  Group group(ranks(), {}, true);
  auto errors = group.run({}, [&](Collectives& collectives) {
    std::vector<float> values(3000, 1);
    for (int i = 0; i < 10'000; ++i) {
      if (i == 5 && collectives.rank() == 0) cut(*group.wires.back());  // between the last two ranks
      if (auto done = collectives.all_reduce(values, in(kPatience)); !done) {
        EXPECT_EQ(collectives.all_reduce(values).error().message, done.error().message);
        return done.error().code;
      }
    }
    return ErrorCode::internal;
  });
  EXPECT_EQ(errors, std::vector<ErrorCode>(ranks(), ErrorCode::unavailable));
}

TEST_P(CollectiveRanks, ARankThatStaysAwayIsATimeoutAndNobodyHangs) {
  Group group(ranks());
  auto errors = group.run({}, [&](Collectives& collectives) {
    std::vector<float> values(100, 1);
    if (collectives.rank() + 1 == ranks()) return std::string("away");
    auto done = collectives.all_reduce(values, in(milliseconds(200)));
    return std::string(done ? "sum" : to_string(done.error().code));
  });
  for (uint32_t rank = 0; rank + 1 < ranks(); ++rank) {
    EXPECT_TRUE(errors[rank] == "timeout" || errors[rank] == "unavailable") << errors[rank];
  }
}

INSTANTIATE_TEST_SUITE_P(Ranks, CollectiveRanks, testing::Range(2u, kMaxGroupRanks + 1),
                         testing::PrintToStringParamName());

TEST(Collectives, AMillionValuesAreSummedAcrossThreeRanks) {
  Group group(3);
  EXPECT_EQ(check_sums(group, {1'000'000}, {}), "");
}

TEST(Collectives, RanksOfOneHostSumOverTcpAndSharedMemory) {
  for (bool shared_memory : {false, true}) {
    Group group(3);
    connect_by_tcp(group, {.shared_memory = shared_memory});
    EXPECT_EQ(group.ranks[0].links[2]->kind(), shared_memory ? "shm" : "tcp");
    EXPECT_EQ(check_sums(group, {1, 4096, 100'003, 1'000'000}, {}), "");
  }
}

TEST(Collectives, AGroupOfOneHasItsOwnValues) {
  Collectives alone({nullptr});
  std::vector<float> values = {1, 2, 3};
  EXPECT_TRUE(alone.all_reduce(values));
  std::vector<float> all(3);
  EXPECT_TRUE(alone.all_gather(values, all, std::vector<uint32_t>{3}));
  EXPECT_TRUE(alone.broadcast(0, std::as_writable_bytes(std::span(all))));
  EXPECT_EQ(all, (std::vector<float>{1, 2, 3}));
}

TEST(Collectives, RanksThatDisagreeAboutTheOperationAreToldSo) {
  Group group(2);
  auto errors = group.run({}, [&](Collectives& collectives) {
    std::vector<float> values(100, 1);
    auto done = collectives.rank() == 0 ? collectives.all_reduce(values, in(kPatience))
                                        : collectives.all_reduce(std::span(values).first(99), in(kPatience));
    return done ? std::string() : done.error().message;
  });
  EXPECT_NE((errors[0] + errors[1]).find("were due"), std::string::npos) << errors[0] << "; " << errors[1];
}

}  // namespace
}  // namespace shoal::link
