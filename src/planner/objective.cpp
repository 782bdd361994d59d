#include "planner/objective.h"

#include <algorithm>
#include <cmath>

#include "planner/sweep.h"

namespace shoal::planner {
namespace {

constexpr int kBalanceRounds = 12;
constexpr int kCutRounds = 6;

Pass decode_pass(double rows) {
  return {rows, rows};
}

Pass first_chunk(const Problem& problem) {
  return {static_cast<double>(std::min(problem.options.prompt_tokens, problem.options.prefill_chunk_tokens)),
          1};
}

// Chunks that follow the first.
double later_chunks(const Problem& problem) {
  const PlanOptions& options = problem.options;
  return std::ceil(static_cast<double>(options.prompt_tokens) / options.prefill_chunk_tokens) - 1;
}

// `parts` groups of sequences follow each other through the stages: each comes round as soon as all stages
// have had it, but no sooner than the slowest stage has had all parts.
double round_seconds(const PassSums& sums, double parts) {
  return std::max(sums.seconds, parts * sums.slowest_seconds);
}

double token_seconds(const Problem& problem, const std::vector<Group>& groups, const std::vector<Cut>& cuts) {
  return pass_sums(problem, groups, cuts, decode_pass(1)).seconds;
}

double batch_token_seconds(const Problem& problem, const std::vector<Group>& groups,
                           const std::vector<Cut>& cuts) {
  const double users = problem.options.concurrency;
  double best = kNever;
  for (uint32_t parts = 1; parts <= std::min<size_t>(problem.options.concurrency, cuts.size()); ++parts) {
    const PassSums sums = pass_sums(problem, groups, cuts, decode_pass(users / parts));
    best = std::min(best, round_seconds(sums, parts) / users);
  }
  return best;
}

double first_token_seconds(const Problem& problem, const std::vector<Group>& groups,
                           const std::vector<Cut>& cuts) {
  const PassSums chunk = pass_sums(problem, groups, cuts, first_chunk(problem));
  return chunk.seconds + later_chunks(problem) * chunk.slowest_seconds;
}

// Searches for one objective. Holds the best so far.
class Optimiser {
 public:
  Optimiser(const Problem& problem, const GroupSet& set, Strategy strategy, uint64_t work)
      : problem_(problem), set_(set), strategy_(strategy), work_(work) {
    best_.exact = set.all_sets;
  }

  Optimum run() {
    switch (problem_.options.objective) {
      case Objective::latency:
        latency();
        break;
      case Objective::throughput:
        throughput();
        break;
      case Objective::ttft:
        first_token();
        break;
    }
    return std::move(best_);
  }

 private:
  // One sweep; what it finds is offered. Returns the sums of what was found, infinite when nothing.
  PassSums look(const PassTable& table, UsedSets& sets, double most_stage, double below, uint64_t work) {
    const bool all_groups = set_.all_sets && problem_.device_count() <= kFewDevices;
    SweepLimits limits{most_stage, below, work, strategy_, problem_.options.minimum_nodes, all_groups};
    SweepAnswer answer = sweep(table, sets, limits);
    best_.work += answer.work;
    best_.exact = best_.exact && answer.complete;
    if (answer.cuts.empty()) return {kNever, kNever};
    double seconds = objective_seconds(problem_, set_.groups, answer.cuts);
    if (seconds < best_.seconds) best_.seconds = seconds, best_.cuts = answer.cuts;
    return pass_sums(problem_, set_.groups, answer.cuts, table.pass());
  }

  PassSums least_sum(const PassTable& table, UsedSets& sets, uint64_t work) {
    return look(table, sets, kNever, kNever, work);
  }

  void latency() {
    PassTable table(problem_, set_.groups, decode_pass(1));
    UsedSets sets(table);
    least_sum(table, sets, work_);
  }

  // Of one sweep among several: most need little, and those that need more come first.
  uint64_t next_work() const { return (work_ - std::min(work_, best_.work)) / kSweepShare; }

  // For each number of parts the least round, by bisection: a round of T needs stages within T / parts and a
  // sum within T.
  void throughput() {
    const double users = problem_.options.concurrency;
    const uint32_t most_parts = std::min(problem_.options.concurrency, problem_.device_count());
    const bool all_parts = problem_.device_count() <= kFewDevices;
    best_.exact = best_.exact && (all_parts || most_parts <= 4);
    for (uint32_t count = 1; count <= most_parts; count += all_parts || count < 4 ? 1 : (count < 8 ? 2 : 8)) {
      PassTable table(problem_, set_.groups, decode_pass(users / count));
      UsedSets sets(table);
      if (best_.cuts.empty() && least_sum(table, sets, next_work()).seconds == kNever) return;
      double high = best_.seconds * users, low = high / 16;
      // Most numbers of parts are no gain, which one sweep shows.
      for (double target = high * (1 - kPrecision); low < high * (1 - kPrecision);
           target = std::sqrt(low * high)) {
        if (look(table, sets, target / count, target, next_work()).seconds == kNever) {
          low = target;
        } else {
          high = std::min(target, best_.seconds * users);
        }
      }
    }
  }

  // Least sum plus so many times the slowest stage: sweeps with ever lower caps on it.
  void first_token() {
    PassTable table(problem_, set_.groups, first_chunk(problem_));
    UsedSets sets(table);
    const double repeats = later_chunks(problem_);
    const bool few = set_.groups.size() <= kFewGroups;
    PassSums sums = least_sum(table, sets, repeats > 0 ? work_ / 4 : work_);

    if (repeats == 0 || sums.seconds == kNever) return;
    double least = least_cap(table);
    double ratio = 1 + kPrecision;
    if (!few) ratio = std::max(ratio, std::pow(sums.slowest_seconds / least, 1.0 / kSweepsOfCaps));
    for (double cap = sums.slowest_seconds / ratio; cap > least / ratio; cap /= ratio) {
      // With a slowest stage in (cap / ratio, cap], only less of a sum than this is a gain.
      double below = best_.seconds - repeats * cap / ratio;
      if (below <= 0) continue;
      PassSums found = look(table, sets, cap, below, next_work());
      if (found.seconds < kNever) cap = std::min(cap, found.slowest_seconds);
    }
  }

  // No placement's slowest stage is faster.
  double least_cap(const PassTable& table) const {
    double sum = 0, most = 0;
    for (uint32_t layer = 0; layer < problem_.layer_count(); ++layer) {
      double least = kNever;
      for (uint32_t group = 0; group < set_.groups.size(); ++group)
        least = std::min(least, table.layers_seconds(group, layer, layer + 1));
      sum += least, most = std::max(most, least);
    }
    return std::max(most, sum / std::max(1u, problem_.device_count()));
  }

  static constexpr double kPrecision = 5e-3;

  static constexpr uint64_t kSweepsOfCaps = 10;
  static constexpr uint64_t kSweepShare = 6;
  static constexpr size_t kFewGroups = 40;

  const Problem& problem_;
  const GroupSet& set_;
  Strategy strategy_;
  uint64_t work_;
  Optimum best_;
};

}  // namespace

PassSums pass_sums(const Problem& problem, const std::vector<Group>& groups, const std::vector<Cut>& cuts,
                   Pass pass) {
  PassSums sums;
  for (size_t i = 0; i < cuts.size(); ++i) {
    double stage =
        stage_seconds(problem, groups[cuts[i].group], cuts[i].first_layer, cuts[i].end_layer, pass);
    sums.seconds += stage;
    sums.slowest_seconds = std::max(sums.slowest_seconds, stage);
    if (i == 0) continue;
    Hop between = hop(problem, groups[cuts[i - 1].group], groups[cuts[i].group], pass.rows);
    sums.seconds += between.seconds;
    sums.slowest_seconds = std::max(sums.slowest_seconds, between.busy_seconds);
  }
  if (cuts.size() > 1)
    sums.seconds += return_seconds(problem, groups[cuts.back().group], groups[cuts.front().group]);
  return sums;
}

Figures figures(const Problem& problem, const std::vector<Group>& groups, const std::vector<Cut>& cuts) {
  return {token_seconds(problem, groups, cuts), batch_token_seconds(problem, groups, cuts),
          first_token_seconds(problem, groups, cuts)};
}

double objective_seconds(const Problem& problem, const std::vector<Group>& groups,
                         const std::vector<Cut>& cuts) {
  switch (problem.options.objective) {
    case Objective::latency:
      return token_seconds(problem, groups, cuts);
    case Objective::throughput:
      return batch_token_seconds(problem, groups, cuts);
    case Objective::ttft:
      return first_token_seconds(problem, groups, cuts);
  }
  return kNever;
}

Optimum optimise(const Problem& problem, const GroupSet& set, Strategy strategy, uint64_t work) {
  return Optimiser(problem, set, strategy, work).run();
}

Pass main_pass(const Problem& problem, size_t stages) {
  switch (problem.options.objective) {
    case Objective::latency:
      return decode_pass(1);
    case Objective::throughput:
      return decode_pass(static_cast<double>(problem.options.concurrency) /
                         static_cast<double>(std::min<size_t>(problem.options.concurrency, stages)));
    case Objective::ttft:
      return first_chunk(problem);
  }
  return decode_pass(1);
}

std::vector<Cut> best_cut(const PassTable& table, const std::vector<Cut>& order) {
  const Problem& problem = table.problem();
  std::vector<Cut> best = cut_in_order(table, order, kNever);
  if (best.empty() || problem.options.objective == Objective::latency) return best;
  double best_seconds = objective_seconds(problem, table.groups(), best);
  double low = 0, high = pass_sums(problem, table.groups(), best, table.pass()).slowest_seconds;
  for (int round = 0; round < kCutRounds; ++round) {
    const double middle = (low + high) / 2;
    std::vector<Cut> tried = cut_in_order(table, order, middle);
    if (tried.empty()) {
      low = middle;
      continue;
    }
    high = middle;
    const double seconds = objective_seconds(problem, table.groups(), tried);
    if (seconds < best_seconds) best_seconds = seconds, best = std::move(tried);
  }
  return best;
}

std::vector<Cut> balanced(const Problem& problem, const std::vector<Group>& groups,
                          const std::vector<Cut>& cuts, double slack) {
  if (cuts.size() < 2) return cuts;
  // Only the groups that take part, so that the table is small.
  std::vector<Group> own;
  std::vector<Cut> order = cuts;
  for (size_t stage = 0; stage < cuts.size(); ++stage) {
    own.push_back(groups[cuts[stage].group]);
    order[stage].group = static_cast<uint32_t>(stage);
  }
  const double allowed = objective_seconds(problem, own, order) * (1 + slack);
  PassTable table(problem, own, decode_pass(1));
  std::vector<Cut> best = order;
  double low = 0, high = pass_sums(problem, own, order, table.pass()).slowest_seconds;
  for (int round = 0; round < kBalanceRounds; ++round) {
    double middle = (low + high) / 2;
    std::vector<Cut> tried = cut_in_order(table, order, middle);
    if (tried.empty() || objective_seconds(problem, own, tried) > allowed) {
      low = middle;
    } else {
      high = middle, best = std::move(tried);
    }
  }
  for (size_t stage = 0; stage < best.size(); ++stage) best[stage].group = cuts[stage].group;
  return best;
}

}  // namespace shoal::planner
