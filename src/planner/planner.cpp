#include "planner/planner.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <numeric>
#include <tuple>

#include "planner/problem.h"
#include "planner/search.h"

namespace shoal::planner {
namespace {

constexpr size_t kMostPlacements = 4;
constexpr double kBalanceSlack = 0.02;   // measured speeds are no better than that
constexpr size_t kMostNamedDevices = 8;  // in one line of an Error

std::string gibibytes(uint64_t bytes) {
  double mebibytes = static_cast<double>(bytes) / (1024.0 * 1024.0);
  return mebibytes < 1024 ? fmt::format("{:.1f} MiB", mebibytes)
                          : fmt::format("{:.1f} GiB", mebibytes / 1024);
}

bool asked_for(const Device& device, const PlanOptions& options) {
  const auto& only = options.only_nodes;
  return only.empty() || std::find(only.begin(), only.end(), device.node) != only.end() ||
         std::find(only.begin(), only.end(), device.name) != only.end();
}

uint64_t smallest_layer_bytes(const Problem& all) {
  uint64_t smallest = UINT64_MAX;
  for (uint32_t layer = 0; layer < all.layer_count; ++layer) {
    smallest = std::min(smallest, all.memory_bytes_before[layer + 1] - all.memory_bytes_before[layer]);
  }
  return smallest + all.overhead_bytes;
}

// Why a device cannot be taken at all; empty when it can.
std::string unusable_reason(const Device& device, const PlanOptions& options, uint64_t smallest_layer) {
  if (!device.holds_model) return fmt::format("left out {}: does not hold the model", device.name);
  if (!asked_for(device, options))
    return fmt::format("left out {}: not among the nodes asked for", device.name);
  if (device.free_memory_bytes < smallest_layer) {
    return fmt::format("left out {}: {} free, but one layer needs {}", device.name,
                       gibibytes(device.free_memory_bytes), gibibytes(smallest_layer));
  }
  return {};
}

Error does_not_fit(const std::vector<Device>& devices, const Problem& problem, const ModelDemand& model,
                   const PlanOptions& options) {
  uint64_t needed = problem.stage_memory_bytes(0, problem.layer_count) +
                    (problem.minimum_nodes - 1) * problem.overhead_bytes;
  uint64_t offered = 0;
  std::string list;
  size_t named = 0, holders = 0;
  for (const Device& device : devices) {
    if (!device.holds_model || !asked_for(device, options)) continue;
    ++holders;
    offered += std::min(device.free_memory_bytes, UINT64_MAX - offered);
    if (named == kMostNamedDevices) continue;
    list += fmt::format("{}{} offers {}", named == 0 ? "" : ", ", device.name,
                        gibibytes(device.free_memory_bytes));
    ++named;
  }
  if (holders > named) list += fmt::format(" and {} more", holders - named);
  std::string missing = needed > offered
                            ? fmt::format("{} are missing", gibibytes(needed - offered))
                            : fmt::format("no cut into whole layers fits, with {} for each stage's own needs",
                                          gibibytes(problem.overhead_bytes));
  return Error{ErrorCode::out_of_memory,
               fmt::format("{} with {} tokens of context needs {}; {}: {}", model.name,
                           uint64_t{options.context_tokens} * std::max(1u, options.concurrency),
                           gibibytes(needed), list, missing),
               "add a node, give shoal more memory (--memory), or lower the context"};
}

std::string bound_reason(const Problem& problem, const Candidate& candidate) {
  double slowest = 0, compute = 0;
  std::string name;
  for (const Cut& cut : candidate.cuts) {
    double seconds = problem.stage_seconds(cut.device, cut.first_layer, cut.end_layer);
    compute += seconds;
    if (seconds > slowest) slowest = seconds, name = problem.devices[cut.device].name;
  }
  double hops = candidate.seconds - compute;
  if (hops > slowest) {
    return fmt::format("bound by the links: {:.2f} of {:.2f} ms a token", hops * 1e3,
                       candidate.seconds * 1e3);
  }
  return fmt::format("bound by reading weights on {}: {:.2f} of {:.2f} ms a token", name, slowest * 1e3,
                     candidate.seconds * 1e3);
}

Placement describe(const Problem& problem, const Candidate& candidate,
                   const std::vector<double>& best_seconds_with, const std::vector<std::string>& unusable) {
  Placement placement;
  std::vector<bool> used(problem.devices.size());
  for (const Cut& cut : candidate.cuts) {
    used[cut.device] = true;
    StagePlan stage{problem.devices[cut.device].node,
                    cut.first_layer,
                    cut.end_layer,
                    problem.stage_memory_bytes(cut.first_layer, cut.end_layer),
                    problem.stage_seconds(cut.device, cut.first_layer, cut.end_layer),
                    {}};
    stage.ranks.push_back({stage.node, 1000, stage.memory_bytes, stage.decode_seconds});
    placement.stages.push_back(std::move(stage));
  }
  placement.tokens_per_second = candidate.seconds > 0 ? 1 / candidate.seconds : 0;
  placement.first_token_seconds = problem.first_token_seconds(candidate.cuts);
  placement.reasons.push_back(bound_reason(problem, candidate));
  for (size_t i = 0; i < problem.devices.size(); ++i) {
    if (used[i]) continue;
    double with = i < best_seconds_with.size() ? best_seconds_with[i] : 0;
    std::string why = "not needed, and another stage costs a hop";
    if (std::isinf(with)) why = "no placement that uses it fits";
    if (with > candidate.seconds && !std::isinf(with)) {
      why = fmt::format("would add {:.2f} ms a token", (with - candidate.seconds) * 1e3);
    }
    placement.reasons.push_back(fmt::format("left out {}: {}", problem.devices[i].name, why));
  }
  placement.reasons.insert(placement.reasons.end(), unusable.begin(), unusable.end());
  return placement;
}

// Device indices, the better first.
template <class Better>
std::vector<uint32_t> ranked(const Problem& problem, Better better) {
  std::vector<uint32_t> order(problem.devices.size());
  std::iota(order.begin(), order.end(), 0u);
  std::sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) {
    if (better(problem.devices[a], problem.devices[b])) return true;
    return !better(problem.devices[b], problem.devices[a]) && a < b;
  });
  return order;
}

// Too many devices for every subset: the exact search over the fastest ones, and subsequences of three orders
// of all.
std::vector<Candidate> search_many(const Problem& problem) {
  auto faster = [](const Device& a, const Device& b) {
    return a.decode_bytes_per_second > b.decode_bytes_per_second;
  };
  auto larger = [](const Device& a, const Device& b) { return a.free_memory_bytes > b.free_memory_bytes; };
  auto slower = [](const Device& a, const Device& b) {
    return a.decode_bytes_per_second < b.decode_bytes_per_second;
  };
  std::vector<uint32_t> by_speed = ranked(problem, faster);
  std::vector<Candidate> candidates = {search_in_order(problem, by_speed),
                                       search_in_order(problem, ranked(problem, larger)),
                                       search_in_order(problem, ranked(problem, slower))};
  by_speed.resize(exact_device_count(problem.layer_count));
  Problem fastest = problem;
  size_t count = by_speed.size();
  fastest.devices.clear();
  for (auto* matrix : {&fastest.hop_seconds, &fastest.return_seconds, &fastest.link_bytes_per_second}) {
    std::vector<double> all = std::move(*matrix);
    matrix->assign(count * count, 0);
    for (size_t i = 0; i < count; ++i) {
      for (size_t j = 0; j < count; ++j)
        (*matrix)[i * count + j] = all[problem.pair(by_speed[i], by_speed[j])];
    }
  }
  for (uint32_t device : by_speed) fastest.devices.push_back(problem.devices[device]);
  for (Candidate candidate : search_subsets(fastest).best_by_count) {
    for (Cut& cut : candidate.cuts) cut.device = by_speed[cut.device];
    candidates.push_back(std::move(candidate));
  }
  return candidates;
}

// Best first, fewer stages first when equally fast, one per stage count.
void rank(const Problem& problem, std::vector<Candidate>& candidates) {
  std::erase_if(candidates,
                [&](const Candidate& c) { return c.cuts.empty() || c.cuts.size() < problem.minimum_nodes; });
  std::sort(candidates.begin(), candidates.end(), [](const Candidate& a, const Candidate& b) {
    return std::tuple(a.cuts.size(), a.seconds) < std::tuple(b.cuts.size(), b.seconds);
  });
  auto same_count = [](const Candidate& a, const Candidate& b) { return a.cuts.size() == b.cuts.size(); };
  candidates.erase(std::unique(candidates.begin(), candidates.end(), same_count), candidates.end());
  std::sort(candidates.begin(), candidates.end(), [](const Candidate& a, const Candidate& b) {
    return std::tuple(a.seconds, a.cuts.size()) < std::tuple(b.seconds, b.cuts.size());
  });
  if (candidates.size() > kMostPlacements) candidates.resize(kMostPlacements);
}

Result<> check_counts(const Problem& problem, const ModelDemand& model) {
  if (problem.minimum_nodes > problem.layer_count) {
    return fail(ErrorCode::invalid_argument,
                fmt::format("{} has {} layers and cannot be cut into {} stages", model.name,
                            problem.layer_count, problem.minimum_nodes));
  }
  if (!problem.devices.empty() && problem.minimum_nodes > problem.devices.size()) {
    return fail(ErrorCode::unavailable,
                fmt::format("{} stages were asked for, but only {} of the nodes can take one",
                            problem.minimum_nodes, problem.devices.size()));
  }
  return {};
}

}  // namespace

Result<std::vector<Placement>> plan(const std::vector<Device>& devices, const std::vector<LinkFigures>& links,
                                    const ModelDemand& model, const PlanOptions& options) {
  auto candidate_device = [&](const Device& device) {
    return device.holds_model && asked_for(device, options);
  };
  if (std::none_of(devices.begin(), devices.end(), candidate_device)) {
    return fail(ErrorCode::unavailable, fmt::format("none of the nodes asked for holds {}", model.name),
                "pull the model on the nodes that shall serve it");
  }
  std::vector<bool> usable(devices.size(), false);
  SHOAL_TRY(Problem sizes, make_problem({}, {}, {}, model, options));
  uint64_t smallest_layer = smallest_layer_bytes(sizes);
  std::vector<std::string> unusable;
  for (size_t i = 0; i < devices.size(); ++i) {
    std::string reason = unusable_reason(devices[i], options, smallest_layer);
    usable[i] = reason.empty();
    if (!reason.empty()) unusable.push_back(std::move(reason));
  }
  SHOAL_TRY(Problem problem, make_problem(devices, usable, links, model, options));
  SHOAL_TRY_VOID(check_counts(problem, model));

  SubsetAnswers exact;
  std::vector<Candidate> candidates;
  if (problem.devices.size() <= exact_device_count(problem.layer_count)) {
    exact = search_subsets(problem);
    candidates = std::move(exact.best_by_count);
  } else {
    candidates = search_many(problem);
  }
  rank(problem, candidates);
  if (candidates.empty()) return std::unexpected(does_not_fit(devices, problem, model, options));

  std::vector<Placement> placements;
  for (const Candidate& candidate : candidates) {
    placements.push_back(
        describe(problem, balanced(problem, candidate, kBalanceSlack), exact.best_seconds_with, unusable));
  }
  return placements;
}

}  // namespace shoal::planner
