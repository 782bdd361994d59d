#include "planner/search.h"

#include <bit>
#include <deque>
#include <limits>

#include "base/assert.h"

namespace shoal::planner {
namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();
constexpr uint32_t kMostExactDevices = 8;
constexpr uint64_t kMostExactOperations = 40'000'000;
constexpr uint64_t kMostBalanceOperations = 2'000'000;  // of one round

// The best way to end a stage at each layer.
struct Row {
  std::vector<double> seconds;        // [layer_count + 1]; infinite: impossible
  std::vector<uint32_t> first_layer;  // [layer_count + 1]: where the stage began
  std::vector<uint32_t> previous;     // [layer_count + 1]: what the caller put into Arrivals::from there
};

// The best way to be about to start a stage at each layer, hop included.
struct Arrivals {
  std::vector<double> seconds;  // [layer_count + 1]
  std::vector<uint32_t> from;   // [layer_count + 1]

  explicit Arrivals(uint32_t layer_count) : seconds(layer_count + 1, kNever), from(layer_count + 1, 0) {}
  void offer(const Row& row, double hop_seconds, uint32_t whence) {
    for (size_t layer = 1; layer < seconds.size(); ++layer) {
      double arrival = row.seconds[layer] + hop_seconds;
      if (arrival < seconds[layer]) seconds[layer] = arrival, from[layer] = whence;
    }
  }
};

// Stages of `device` that are the first of the pipeline.
Row first_stage(const Problem& problem, uint32_t device) {
  uint32_t count = problem.layer_count;
  Row row{std::vector<double>(count + 1, kNever), std::vector<uint32_t>(count + 1, 0),
          std::vector<uint32_t>(count + 1, 0)};
  for (uint32_t end = 1; end <= count; ++end) {
    if (problem.fits(device, 0, end)) row.seconds[end] = problem.stage_seconds(device, 0, end);
  }
  return row;
}

// Stages of `device` that follow another. The best start for an end is a minimum over a window of starts,
// whose lower edge (memory) only moves up: O(layers). The last layer's stage also holds the head, so its
// window is looked at alone.
Row later_stage(const Problem& problem, uint32_t device, const Arrivals& arrivals) {
  uint32_t count = problem.layer_count;
  Row row{std::vector<double>(count + 1, kNever), std::vector<uint32_t>(count + 1, 0),
          std::vector<uint32_t>(count + 1, 0)};
  double speed = problem.devices[device].decode_bytes_per_second;
  auto rest = [&](uint32_t start) {
    return arrivals.seconds[start] - problem.active_bytes_before[start] / speed;
  };
  auto put = [&](uint32_t start, uint32_t end) {
    row.seconds[end] = arrivals.seconds[start] + problem.stage_seconds(device, start, end);
    row.first_layer[end] = start;
    row.previous[end] = arrivals.from[start];
  };
  std::deque<uint32_t> window;  // starts, their rest() rising
  uint32_t lowest = 1;
  for (uint32_t end = 2; end < count; ++end) {
    if (arrivals.seconds[end - 1] < kNever) {
      while (!window.empty() && rest(window.back()) >= rest(end - 1)) window.pop_back();
      window.push_back(end - 1);
    }
    while (lowest < end && !problem.fits(device, lowest, end)) ++lowest;
    while (!window.empty() && window.front() < lowest) window.pop_front();
    if (!window.empty()) put(window.front(), end);
  }
  double best = kNever;
  for (uint32_t start = 1; start < count; ++start) {
    if (arrivals.seconds[start] == kNever || !problem.fits(device, start, count)) continue;
    double seconds = arrivals.seconds[start] + problem.stage_seconds(device, start, count);
    if (seconds < best) best = seconds, put(start, count);
  }
  return row;
}

// All sets of devices that begin with one device.
class SubsetsFrom {
 public:
  SubsetsFrom(const Problem& problem, uint32_t first)
      : problem_(problem), count_(static_cast<uint32_t>(problem.devices.size())), first_(first) {
    rows_.resize((size_t{1} << count_) * count_);
  }

  void run(SubsetAnswers& answers) {
    uint32_t start = 1u << first_;
    rows_[index(start, first_)] = first_stage(problem_, first_);
    offer(start, first_, answers);
    for (uint32_t used = start + 1; used < (1u << count_); ++used) {
      if ((used & start) == 0) continue;
      for (uint32_t last = 0; last < count_; ++last) {
        if (last == first_ || (used >> last & 1) == 0) continue;
        rows_[index(used, last)] = later_stage(problem_, last, arrive(used & ~(1u << last), last));
        offer(used, last, answers);
      }
    }
  }

 private:
  size_t index(uint32_t used, uint32_t last) const { return size_t{used} * count_ + last; }

  Arrivals arrive(uint32_t used, uint32_t next) const {
    Arrivals arrivals(problem_.layer_count);
    for (uint32_t device = 0; device < count_; ++device) {
      const Row& row = rows_[index(used, device)];
      if ((used >> device & 1) != 0 && !row.seconds.empty()) {
        arrivals.offer(row, problem_.hop_seconds[problem_.pair(device, next)], device);
      }
    }
    return arrivals;
  }

  void offer(uint32_t used, uint32_t last, SubsetAnswers& answers) const {
    double seconds = rows_[index(used, last)].seconds[problem_.layer_count];
    if (seconds == kNever) return;
    uint32_t stages = static_cast<uint32_t>(std::popcount(used));
    if (stages > 1) seconds += problem_.return_seconds[problem_.pair(last, first_)];
    if (stages >= problem_.minimum_nodes) {
      for (uint32_t device = 0; device < count_; ++device) {
        double& with = answers.best_seconds_with[device];
        if (used >> device & 1) with = std::min(with, seconds);
      }
    }
    Candidate& best = answers.best_by_count[stages];
    if (best.cuts.empty() || seconds < best.seconds) best = {trace(used, last), seconds};
  }

  std::vector<Cut> trace(uint32_t used, uint32_t last) const {
    std::vector<Cut> cuts;
    uint32_t end = problem_.layer_count;
    while (true) {
      const Row& row = rows_[index(used, last)];
      cuts.insert(cuts.begin(), {last, row.first_layer[end], end});
      if (row.first_layer[end] == 0) return cuts;
      uint32_t previous = row.previous[end];
      end = row.first_layer[end];
      used &= ~(1u << last);
      last = previous;
    }
  }

  const Problem& problem_;
  uint32_t count_, first_;
  std::vector<Row> rows_;  // [set of devices used][last device]; rows without entries do not occur
};

// The fastest cut for these devices in this order with no stage slower than `most_seconds`; empty when there
// is none.
Candidate cut_within(const Problem& problem, std::vector<Cut> cuts, double most_seconds) {
  uint32_t layers = problem.layer_count;
  std::vector<std::vector<double>> best(cuts.size() + 1, std::vector<double>(layers + 1, kNever));
  std::vector<std::vector<uint32_t>> starts(cuts.size() + 1, std::vector<uint32_t>(layers + 1, 0));
  best[0][0] = 0;
  for (uint32_t k = 0; k < cuts.size(); ++k) {
    for (uint32_t end = k + 1; end <= layers; ++end) {
      for (uint32_t start = end; start-- > 0;) {
        double stage = problem.stage_seconds(cuts[k].device, start, end);
        if (stage > most_seconds || !problem.fits(cuts[k].device, start, end))
          break;  // and longer ones even more so
        if (best[k][start] + stage >= best[k + 1][end]) continue;
        best[k + 1][end] = best[k][start] + stage;
        starts[k + 1][end] = start;
      }
    }
  }
  if (best[cuts.size()][layers] == kNever) return {};
  for (uint32_t k = static_cast<uint32_t>(cuts.size()), end = layers; k > 0; --k) {
    cuts[k - 1].end_layer = end;
    end = cuts[k - 1].first_layer = starts[k][end];
  }
  double seconds = problem.token_seconds(cuts);
  return {std::move(cuts), seconds};
}

}  // namespace

uint32_t exact_device_count(uint32_t layer_count) {
  uint32_t devices = kMostExactDevices;
  auto operations = [&](uint64_t n) { return (uint64_t{1} << n) * n * n * n * layer_count; };
  while (devices > 4 && operations(devices) > kMostExactOperations) --devices;
  return devices;
}

SubsetAnswers search_subsets(const Problem& problem) {
  uint32_t count = static_cast<uint32_t>(problem.devices.size());
  SHOAL_ASSERT(count <= kMostExactDevices);
  SubsetAnswers answers{std::vector<Candidate>(count + 1), std::vector<double>(count, kNever)};
  for (uint32_t first = 0; first < count; ++first) SubsetsFrom(problem, first).run(answers);
  return answers;
}

Candidate search_in_order(const Problem& problem, const std::vector<uint32_t>& order) {
  // rows[i][c]: the best pipelines that end with order[i] and have c + 1 stages, the last c standing for "or
  // more".
  uint32_t counts = std::min(problem.minimum_nodes, problem.layer_count);
  std::vector<std::vector<Row>> rows(order.size(), std::vector<Row>(counts));
  Candidate best;
  auto pack = [&](size_t i, uint32_t c) { return static_cast<uint32_t>(i * counts + c); };
  size_t best_at = 0;
  for (size_t i = 0; i < order.size(); ++i) {
    for (uint32_t c = 0; c < counts; ++c) {
      Arrivals arrivals(problem.layer_count);
      for (size_t before = 0; before < i; ++before) {
        double hop = problem.hop_seconds[problem.pair(order[before], order[i])];
        if (c > 0) arrivals.offer(rows[before][c - 1], hop, pack(before, c - 1));
        if (c + 1 == counts) arrivals.offer(rows[before][c], hop, pack(before, c));
      }
      rows[i][c] = later_stage(problem, order[i], arrivals);
      if (c != 0) continue;
      Row alone = first_stage(problem, order[i]);
      for (uint32_t end = 1; end <= problem.layer_count; ++end) {
        if (alone.seconds[end] > rows[i][0].seconds[end]) continue;
        rows[i][0].seconds[end] = alone.seconds[end], rows[i][0].first_layer[end] = 0;
      }
    }
    double seconds = rows[i][counts - 1].seconds[problem.layer_count];
    if (seconds < (best_at == 0 ? kNever : best.seconds))
      best.seconds = seconds, best_at = pack(i, counts - 1) + 1;
  }
  if (best_at == 0) return {};
  uint32_t end = problem.layer_count;
  for (size_t at = best_at - 1; end != 0;) {
    const Row& row = rows[at / counts][at % counts];
    best.cuts.insert(best.cuts.begin(), {order[at / counts], row.first_layer[end], end});
    at = row.previous[end];
    end = row.first_layer[end];
  }
  best.seconds = problem.token_seconds(best.cuts);
  return best;
}

Candidate balanced(const Problem& problem, const Candidate& candidate, double slack) {
  uint64_t layers = problem.layer_count;
  if (candidate.cuts.size() < 2 || candidate.cuts.size() * layers * layers > kMostBalanceOperations)
    return candidate;
  Candidate best = candidate;
  double slowest = 0;
  for (const Cut& cut : best.cuts) {
    slowest = std::max(slowest, problem.stage_seconds(cut.device, cut.first_layer, cut.end_layer));
  }
  double low = 0, high = slowest;
  for (int round = 0; round < 16; ++round) {
    double middle = (low + high) / 2;
    Candidate tried = cut_within(problem, candidate.cuts, middle);
    if (tried.cuts.empty() || tried.seconds > candidate.seconds * (1 + slack)) {
      low = middle;
    } else {
      high = middle;
      best = std::move(tried);
    }
  }
  return best;
}

}  // namespace shoal::planner
