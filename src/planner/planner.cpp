#include "planner/planner.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <numeric>
#include <tuple>

#include "planner/explain.h"
#include "planner/sweep.h"

namespace shoal::planner {
namespace {

constexpr size_t kMostPlacements = 4;
constexpr double kBalanceSlack = 0.008;  // measured speeds are no better than that
constexpr size_t kMostNamedDevices = 8;  // in one line of an Error
constexpr size_t kMostReasons = 16;      // of devices that were left out
constexpr uint32_t kMostDevices = 64;    // that the search can tell apart

constexpr uint64_t kWorkOfFew = 24'000'000;  // steps of the inner loops: a tenth of a second
constexpr uint64_t kWorkOfMany = 4'000'000;  // and some hundredths
constexpr int kImprovements = 4;
constexpr size_t kMostTried = 128;  // places for one more device in each

bool asked_for(const Device& device, const PlanOptions& options) {
  const auto& only = options.only_nodes;
  return only.empty() || std::find(only.begin(), only.end(), device.node) != only.end() ||
         std::find(only.begin(), only.end(), device.name) != only.end();
}

uint64_t smallest_layer_bytes(const Problem& all, const PlanOptions& options) {
  uint64_t smallest = UINT64_MAX;
  for (const LayerKind& kind : all.kinds) {
    // Of eight ranks, one holds at least this.
    bool shared = options.strategy != Strategy::pipeline && can_share(kind.demand, 2);
    smallest = std::min(smallest, shared ? kind.demand.replicated_bytes : kind.memory_bytes());
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
  uint64_t needed = problem.stage_memory_bytes(0, problem.layer_count()) +
                    (problem.options.minimum_nodes - 1) * problem.overhead_bytes;
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

Result<> check_counts(const Problem& problem, const ModelDemand& model) {
  const uint32_t wanted =
      std::max(problem.options.minimum_nodes, problem.options.strategy == Strategy::tensor ? 2u : 1u);
  const uint32_t devices = problem.device_count();
  bool shareable = std::all_of(problem.kinds.begin(), problem.kinds.end(),
                               [](const LayerKind& kind) { return can_share(kind.demand, 2); });
  if (!shareable &&
      (problem.options.strategy == Strategy::tensor || problem.options.strategy == Strategy::hybrid)) {
    return fail(ErrorCode::unsupported, fmt::format("the layers of {} cannot be shared by ranks", model.name),
                "use --strategy pipeline");
  }
  bool pipeline = !shareable || problem.options.strategy == Strategy::pipeline;
  if (pipeline && wanted > problem.layer_count()) {
    return fail(ErrorCode::invalid_argument, fmt::format("{} has {} layers and cannot be cut into {} stages",
                                                         model.name, problem.layer_count(), wanted));
  }
  if (devices > 0 && wanted > devices) {
    return fail(ErrorCode::unavailable,
                fmt::format("{} {} were asked for, but only {} of the nodes can take one", wanted,
                            pipeline ? "stages" : "ranks", devices));
  }
  return {};
}

// The devices that a search of at most kMostDevices shall see: those with most memory times speed.
void keep_most_useful(const std::vector<Device>& devices, std::vector<bool>& usable) {
  std::vector<uint32_t> order;
  for (uint32_t i = 0; i < devices.size(); ++i)
    if (usable[i]) order.push_back(i);
  if (order.size() <= kMostDevices) return;
  auto worth = [&](uint32_t i) {
    return std::sqrt(static_cast<double>(devices[i].free_memory_bytes)) * devices[i].decode_bytes_per_second;
  };
  std::sort(order.begin(), order.end(),
            [&](uint32_t a, uint32_t b) { return worth(a) != worth(b) ? worth(a) > worth(b) : a < b; });
  for (size_t i = kMostDevices; i < order.size(); ++i) usable[order[i]] = false;
}

// A placement that was found, with what ranks it.
struct Found {
  std::vector<Cut> cuts;
  double seconds = kNever;
  bool exact = false;
  size_t number = 0;  // of those found, in order
};

class Finder {
 public:
  Finder(const Problem& problem, GroupSet set) : problem_(problem), set_(std::move(set)) {}

  // Best first; each has its own groups in its own order.
  std::vector<Found> run() {
    Strategy strategy = problem_.options.strategy;
    Optimum best = optimise(problem_, set_, strategy, work());
    if (!best.cuts.empty()) {
      Found main{best.cuts, best.seconds, best.exact};
      if (!main.exact) improve(main);
      add(std::move(main));
    }
    if (strategy == Strategy::automatic) add_others();
    std::sort(found_.begin(), found_.end(), [&](const Found& a, const Found& b) {
      return std::tuple(a.seconds, a.cuts.size(), a.number) < std::tuple(b.seconds, b.cuts.size(), b.number);
    });
    if (found_.size() > kMostPlacements) found_.resize(kMostPlacements);
    return std::move(found_);
  }

  std::vector<Group>& groups() { return set_.groups; }

 private:
  uint64_t work() const { return problem_.device_count() <= kFewDevices ? kWorkOfFew : kWorkOfMany; }

  uint32_t devices_of(const std::vector<Cut>& cuts) const {
    uint32_t devices = 0;
    for (const Cut& cut : cuts) devices += set_.groups[cut.group].ranks();
    return devices;
  }

  bool used_up(const std::vector<Cut>& cuts, uint16_t c) const {
    uint32_t taken = 0;
    for (const Cut& cut : cuts) {
      const auto& members = set_.groups[cut.group].members;
      taken += static_cast<uint32_t>(std::count(members.begin(), members.end(), c));
    }
    return taken == problem_.classes[c].count();
  }

  std::vector<uint16_t> fastest_unused(const std::vector<Cut>& cuts, size_t most) const {
    std::vector<std::pair<double, uint16_t>> classes;  // less is faster
    for (uint16_t c = 0; c < problem_.classes.size(); ++c) {
      const Device& device = problem_.classes[c].figures;
      const bool prompts = problem_.options.objective == Objective::ttft;
      if (!used_up(cuts, c))
        classes.emplace_back(prompts ? -device.prefill_flops_per_second : -device.decode_bytes_per_second, c);
    }
    std::sort(classes.begin(), classes.end());
    classes.resize(std::min(classes.size(), most));
    std::vector<uint16_t> fastest;
    for (const auto& [speed, c] : classes) fastest.push_back(c);
    return fastest;
  }

  void add(Found found) {
    if (found.cuts.empty() || devices_of(found.cuts) < problem_.options.minimum_nodes) return;
    for (const Found& other : found_) {
      bool same = std::equal(other.cuts.begin(), other.cuts.end(), found.cuts.begin(), found.cuts.end(),
                             [&](const Cut& a, const Cut& b) {
                               return set_.groups[a.group].members == set_.groups[b.group].members;
                             });
      if (same) return;
    }
    found.number = found_.size();
    found_.push_back(std::move(found));
  }

  // One more device as long as that helps: what a beam may have missed.
  void improve(Found& found) {
    for (int round = 0; round < kImprovements; ++round) {
      Found better = found;
      for (uint16_t c : fastest_unused(found.cuts, kMostTried / (found.cuts.size() + 1))) {
        std::vector<Cut> with = with_device(problem_, set_.groups, found.cuts, c);
        if (with.empty()) continue;
        double seconds = objective_seconds(problem_, set_.groups, with);
        if (seconds < better.seconds) better.cuts = std::move(with), better.seconds = seconds;
      }
      if (better.seconds >= found.seconds * (1 - 1e-3)) return;
      found = std::move(better);
    }
  }

  // To choose from: the best pipeline, the best stage alone by its number of ranks, and one device more.
  void add_others() {
    const uint32_t layers = problem_.layer_count();
    std::vector<Found> alone(kMostRanks + 1);
    for (uint32_t group = 0; group < set_.groups.size(); ++group) {
      if (set_.groups[group].reaches_last[0] == 0) continue;
      std::vector<Cut> cuts = {{group, 0, layers}};
      Found& best = alone[set_.groups[group].ranks()];
      double seconds = objective_seconds(problem_, set_.groups, cuts);
      if (seconds < best.seconds) best = {std::move(cuts), seconds, set_.all_sets};
    }
    bool shared =
        std::any_of(set_.groups.begin(), set_.groups.end(), [](const Group& g) { return g.ranks() > 1; });
    if (shared) {
      GroupSet singles;
      for (const Group& group : set_.groups) {
        if (group.ranks() > 1) break;
        singles.groups.push_back(group);
      }
      Optimum pipeline = optimise(problem_, singles, Strategy::pipeline, work() / 8);
      // Groups of one rank began the set, so indices are the same.
      add({pipeline.cuts, pipeline.seconds, pipeline.exact});
    }
    for (Found& each : alone) add(std::move(each));
    if (found_.empty()) return;
    Found more;
    std::vector<Cut> best = found_.front().cuts;
    for (uint16_t c = 0; c < std::min<size_t>(problem_.classes.size(), kMostReasons); ++c) {
      if (used_up(best, c)) continue;
      std::vector<Cut> with = with_device(problem_, set_.groups, best, c);
      if (with.empty()) continue;
      double seconds = objective_seconds(problem_, set_.groups, with);
      if (seconds < more.seconds) more = {std::move(with), seconds, false};
    }
    add(std::move(more));
  }

  const Problem& problem_;
  GroupSet set_;
  std::vector<Found> found_;
};

void explain_left_out(const Problem& problem, const std::vector<Device>& devices, std::vector<Group>& groups,
                      const std::vector<Cut>& cuts, std::vector<std::string>& reasons) {
  std::vector<uint32_t> taken(problem.classes.size(), 0);
  for (const Cut& cut : cuts)
    for (uint16_t member : groups[cut.group].members) ++taken[member];
  size_t told = 0, untold = 0;
  for (uint16_t c = 0; c < problem.classes.size(); ++c) {
    uint32_t left = problem.classes[c].count() - taken[c];
    if (left == 0) continue;
    if (++told > kMostReasons) {
      untold += left;
      continue;
    }
    std::vector<Cut> with = with_device(problem, groups, cuts, c);
    const std::string& name = devices[problem.classes[c].devices[taken[c]]].name;
    std::string reason = left_out_reason(problem, groups, cuts, with, c, name);
    if (left > 1) reason += fmt::format(" (and {} like it)", left - 1);
    reasons.push_back(std::move(reason));
  }
  if (untold > 0) reasons.push_back(fmt::format("left out {} more that would not help", untold));
}

struct Usable {
  std::vector<bool> devices;
  std::vector<std::string> reasons;  // why others are not
};

Usable find_usable(const std::vector<Device>& devices, const Problem& sizes, const PlanOptions& options) {
  Usable usable{std::vector<bool>(devices.size(), false), {}};
  uint64_t smallest_layer = smallest_layer_bytes(sizes, options);
  for (size_t i = 0; i < devices.size(); ++i) {
    std::string reason = unusable_reason(devices[i], options, smallest_layer);
    usable.devices[i] = reason.empty();
    if (!reason.empty()) usable.reasons.push_back(std::move(reason));
  }
  keep_most_useful(devices, usable.devices);
  return usable;
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
  SHOAL_TRY(Problem sizes, make_problem({}, {}, {}, model, options));
  Usable usable = find_usable(devices, sizes, options);
  SHOAL_TRY(Problem problem, make_problem(devices, usable.devices, links, model, options));
  SHOAL_TRY_VOID(check_counts(problem, model));

  Finder finder(problem, candidate_groups(problem, options.strategy));
  std::vector<Found> found = finder.run();
  if (found.empty()) return std::unexpected(does_not_fit(devices, problem, model, options));
  std::vector<Placement> placements;
  for (const Found& each : found) {
    std::vector<Cut> cuts = balanced(problem, finder.groups(), each.cuts, kBalanceSlack);
    Placement placement = describe(problem, devices, finder.groups(), cuts);
    placement.exact = each.exact;
    placement.reasons.push_back(bound_reason(placement, devices));
    if (std::string reason = wire_reason(placement, options.wire); !reason.empty())
      placement.reasons.push_back(std::move(reason));
    if (placements.empty()) {
      explain_left_out(problem, devices, finder.groups(), cuts, placement.reasons);
    } else {
      placement.reasons.push_back(fmt::format("takes {:.0f} % longer than the first placement",
                                              (each.seconds / found.front().seconds - 1) * 100));
    }
    placement.reasons.insert(placement.reasons.end(), usable.reasons.begin(), usable.reasons.end());
    placements.push_back(std::move(placement));
  }
  return placements;
}

}  // namespace shoal::planner
