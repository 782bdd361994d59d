#include "planner/sweep.h"

#include <algorithm>
#include <deque>
#include <map>
#include <tuple>

namespace shoal::planner {
namespace {

constexpr size_t kQuickGroups = 12;   // tried after a set in a first look
constexpr size_t kLikelyGroups = 32;  // and in a beam over many devices

constexpr double kWorthwhile = 1 - 2e-3;  // what promises less of a gain is not followed

// Classes whose devices are told a token in the same time by everybody: as first leaders they are one.
std::vector<uint16_t> return_profiles(const Problem& problem) {
  size_t classes = problem.classes.size();
  std::vector<uint16_t> first_like(classes);
  auto seconds = [&](size_t from, size_t to) {
    return latency_seconds(problem.path(static_cast<uint32_t>(from), static_cast<uint32_t>(to)), 1);
  };
  auto alike = [&](size_t a, size_t b) {
    if (seconds(a, b) != seconds(b, a)) return false;
    for (size_t other = 0; other < classes; ++other)
      if (other != a && other != b && seconds(other, a) != seconds(other, b)) return false;
    // Those of more than one device also hear from their own kind.
    return (problem.classes[a].count() == 1 || seconds(a, a) == seconds(a, b)) &&
           (problem.classes[b].count() == 1 || seconds(b, b) == seconds(b, a));
  };
  for (size_t c = 0; c < classes; ++c) {
    size_t like = 0;
    while (like < c && (first_like[like] != like || !alike(like, c))) ++like;
    first_like[c] = static_cast<uint16_t>(like);
  }
  return first_like;
}

struct StoredRow {
  uint32_t group = 0;
  Row row;
};

// Partial placements that use the same devices and whose token returns to equal leaders.
struct Bundle {
  uint64_t used = 0;
  uint16_t profile = 0;  // the class that stands for the first stage's leader
  bool shared = false;   // some stage has several ranks
  std::vector<int32_t> rows;
  double score = kNever;  // the least that any of them can come to
};

class Sweep {
 public:
  Sweep(const PassTable& table, UsedSets& sets, const SweepLimits& limits, size_t most_groups)
      : table_(table),
        problem_(table.problem()),
        limits_(limits),
        sets_(sets),
        profiles_(return_profiles(problem_)),
        layers_(problem_.layer_count()),
        most_groups_(most_groups) {
    const uint32_t devices = problem_.device_count();
    levels_.resize(devices + 1);
    index_.resize(devices + 1);
    bound_ = limits.below_seconds;
  }

  SweepAnswer run() {
    start();
    for (uint32_t level = 1; level + 1 < levels_.size(); ++level) {
      if (limits_.strategy == Strategy::tensor) break;
      pass_level(level);
      levels_[level].clear(), index_[level].clear();
    }
    if (best_row_ >= 0) answer_.cuts = trace();
    return std::move(answer_);
  }

 private:
  using Key = std::tuple<uint64_t, uint16_t, bool>;

  void start() {
    for (uint32_t group = 0; group < table_.groups().size(); ++group) {
      first_stage(table_, group, limits_.most_stage_seconds, row_);
      answer_.work += layers_;
      keep(0, group, profiles_[table_.groups()[group].members[0]], false, 0);
    }
  }

  void pass_level(uint32_t level) {
    std::vector<Bundle>& bundles = levels_[level];
    std::sort(bundles.begin(), bundles.end(), [](const Bundle& a, const Bundle& b) {
      return std::tuple(a.score, a.used, a.profile, a.shared) <
             std::tuple(b.score, b.used, b.profile, b.shared);
    });
    uint64_t left = limits_.work - std::min(limits_.work, answer_.work);
    // Placements need few devices more often than many.
    const uint64_t share = problem_.device_count() <= kFewDevices ? 4 : 12;
    uint64_t allowed = answer_.work + left / std::min<uint64_t>(levels_.size() - level, share);
    for (const Bundle& bundle : bundles) {
      if (bundle.score >= bound_ * kWorthwhile) break;
      if (answer_.work >= allowed) {
        answer_.complete = false;
        break;
      }
      extend(bundle, level);
    }
  }

  // Groups that may follow, all of them or, where they are many, those that promise most.
  std::vector<uint32_t> next_groups(const Bundle& bundle) {
    std::vector<uint32_t> next;
    for (uint32_t group = 0; group < table_.groups().size(); ++group)
      if (sets_.has_room(bundle.used, group)) next.push_back(group);
    if (next.size() <= most_groups_) return next;
    uint32_t last = rows_[static_cast<size_t>(bundle.rows.front())].group;
    std::vector<double> cost(table_.groups().size(), kNever);
    for (uint32_t group : next) {
      uint32_t middle = layers_ / 2;
      uint32_t end = table_.groups()[group].furthest[middle];
      if (end <= middle) end = std::min(middle + 1, layers_);
      cost[group] = (table_.layers_seconds(group, middle, end) + table_.hop(last, group).seconds) /
                    static_cast<double>(end - middle);
    }
    answer_.work += next.size();
    std::nth_element(next.begin(), next.begin() + static_cast<ptrdiff_t>(most_groups_), next.end(),
                     [&](uint32_t a, uint32_t b) { return std::tuple(cost[a], a) < std::tuple(cost[b], b); });
    next.resize(most_groups_);
    answer_.complete = false;
    return next;
  }

  void extend(const Bundle& bundle, uint32_t level) {
    for (uint32_t group : next_groups(bundle)) {
      arrivals_.reset(layers_);
      for (int32_t index : bundle.rows) {
        const StoredRow& from = rows_[static_cast<size_t>(index)];
        const Hop& hop = table_.hop(from.group, group);
        if (hop.busy_seconds > limits_.most_stage_seconds) continue;
        arrivals_.offer(from.row, hop.seconds, index);
        answer_.work += from.row.high - from.row.low + 1;
      }
      later_stage(table_, group, arrivals_, limits_.most_stage_seconds, row_);
      answer_.work += 4 * layers_;
      keep(bundle.used, group, bundle.profile, bundle.shared, level);
    }
  }

  void keep(uint64_t used_before, uint32_t group, uint16_t profile, bool shared, uint32_t level) {
    const Group& ranks = table_.groups()[group];
    uint32_t devices = level + ranks.ranks();
    uint64_t used = used_before + sets_.of_group(group);
    shared = shared || ranks.ranks() > 1;
    bool wanted =
        devices >= limits_.minimum_devices && (limits_.strategy != Strategy::hybrid || (shared && level > 0));
    bool is_best = false;
    if (row_.cells[layers_].seconds < kNever && wanted) {
      double back = level == 0 ? 0 : latency_seconds(problem_.path(ranks.members[0], profile), 1);
      double seconds = row_.cells[layers_].seconds + back;
      is_best = seconds < bound_;
      if (is_best) {
        bound_ = answer_.seconds = seconds;
        best_row_ = static_cast<int32_t>(rows_.size());
      }
    }
    double score = prune(used);
    if (score == kNever && !is_best) return;
    rows_.push_back({group, row_});
    if (score == kNever || devices + 1 >= levels_.size()) return;
    Bundle& bundle = bundle_of(devices, {used, profile, shared});
    bundle.rows.push_back(static_cast<int32_t>(rows_.size() - 1));
    bundle.score = std::min(bundle.score, score);
  }

  // Drops ends that cannot come to anything better. Returns the least that those left could come to.
  double prune(uint64_t used) {
    const std::vector<double>& least = sets_.least_seconds(used);
    double score = kNever;
    uint32_t low = layers_ + 1, high = 0;
    for (uint32_t layer = row_.low; layer <= row_.high; ++layer) {
      double total = row_.cells[layer].seconds + least[layer];
      if (layer < layers_ && total >= bound_ * kWorthwhile) {
        row_.cells[layer].seconds = kNever;
      } else if (total < kNever) {
        low = std::min(low, layer), high = layer;
        if (layer < layers_) score = std::min(score, total);
      }
    }
    row_.low = low, row_.high = high;
    return score;
  }

  Bundle& bundle_of(uint32_t level, const Key& key) {
    auto [found, added] = index_[level].try_emplace(key, levels_[level].size());
    if (added) {
      levels_[level].push_back({std::get<0>(key), std::get<1>(key), std::get<2>(key), {}, kNever});
    }
    return levels_[level][found->second];
  }

  std::vector<Cut> trace() const {
    std::vector<Cut> cuts;
    uint32_t end = layers_;
    for (int32_t index = best_row_; index >= 0;) {
      const StoredRow& stored = rows_[static_cast<size_t>(index)];
      cuts.insert(cuts.begin(), {stored.group, stored.row.cells[end].first_layer, end});
      index = stored.row.cells[end].previous;
      end = cuts.front().first_layer;
    }
    return cuts;
  }

  const PassTable& table_;
  const Problem& problem_;
  SweepLimits limits_;
  UsedSets& sets_;
  std::vector<uint16_t> profiles_;
  uint32_t layers_;
  double bound_ = kNever;
  size_t most_groups_;  // that are tried after a set: the likeliest
  int32_t best_row_ = -1;
  std::deque<StoredRow> rows_;
  std::vector<std::vector<Bundle>> levels_;  // [devices used]
  std::vector<std::map<Key, size_t>> index_;
  Arrivals arrivals_;
  Row row_;  // the one in the making
  SweepAnswer answer_;
};

}  // namespace

bool fits_sweep(const Problem& problem) {
  return UsedSets::bits_needed(problem) <= 64;
}

SweepAnswer sweep(const PassTable& table, UsedSets& sets, const SweepLimits& limits) {
  // A quick look for something good, which then cuts the thorough search short.
  SweepLimits quick = limits;
  quick.work = limits.work / 4;
  SweepAnswer found = Sweep(table, sets, quick, kQuickGroups).run();
  if (found.complete) return found;

  SweepLimits thorough = limits;
  thorough.work = limits.work - std::min(limits.work, found.work);
  thorough.below_seconds = std::min(limits.below_seconds, found.seconds);
  SweepAnswer answer = Sweep(table, sets, thorough, limits.all_groups ? SIZE_MAX : kLikelyGroups).run();
  answer.work += found.work;
  if (answer.cuts.empty()) {
    answer.cuts = std::move(found.cuts);
    answer.seconds = found.seconds;
  }
  return answer;
}

}  // namespace shoal::planner
