#include "planner/predict.h"

#include <algorithm>
#include <fmt/format.h>

#include "planner/explain.h"

namespace shoal::planner {
namespace {

// A running placement in the search's terms.
struct Running {
  Problem problem;
  std::vector<Group> groups;  // one per stage
  std::vector<Cut> cuts;
};

Result<> check_stages(const std::vector<StagePlan>& stages, const ModelDemand& model) {
  uint32_t next = 0;
  for (const StagePlan& stage : stages) {
    bool shares = std::all_of(stage.ranks.begin(), stage.ranks.end(),
                              [](const RankPlan& rank) { return rank.share_per_mille > 0; });
    if (stage.first_layer != next || stage.end_layer <= next || stage.ranks.empty() ||
        stage.ranks.size() > kMostRanks || !shares)
      return fail(ErrorCode::invalid_argument,
                  fmt::format("layers {} to {} on {} ranks are no stage that follows layer {}",
                              stage.first_layer, stage.end_layer, stage.ranks.size(), next));
    next = stage.end_layer;
  }
  if (next != model.layers.size())
    return fail(ErrorCode::invalid_argument,
                fmt::format("the stages end at layer {} of {}", next, model.layers.size()));
  return {};
}

Result<Running> make_running(std::vector<Device> devices, const std::vector<LinkFigures>& links,
                             const ModelDemand& model, const PlanOptions& options,
                             const std::vector<StagePlan>& stages) {
  SHOAL_TRY_VOID(check_stages(stages, model));
  // What runs has its memory; free memory is of no interest here.
  for (Device& device : devices) device.free_memory_bytes = UINT64_MAX;
  Running running;
  SHOAL_TRY(running.problem, make_problem(devices, std::vector<bool>(devices.size(), true), links, model,
                                          options, Symmetry::ignored));
  for (const StagePlan& stage : stages) {
    std::vector<uint16_t> members;
    std::vector<uint32_t> shares;
    for (const RankPlan& rank : stage.ranks) {
      auto found = std::find_if(devices.begin(), devices.end(),
                                [&](const Device& device) { return device.node == rank.node; });
      if (found == devices.end())
        return fail(ErrorCode::not_found, fmt::format("node {} is not among the devices", rank.node));
      members.push_back(static_cast<uint16_t>(found - devices.begin()));
      shares.push_back(rank.share_per_mille);
    }
    auto group = make_group(running.problem, std::move(members), std::move(shares));
    if (!group)
      return fail(ErrorCode::invalid_argument,
                  fmt::format("{} cannot be shared by {} ranks", model.name, stage.ranks.size()));
    running.cuts.push_back(
        {static_cast<uint32_t>(running.groups.size()), stage.first_layer, stage.end_layer});
    running.groups.push_back(*std::move(group));
  }
  return running;
}

}  // namespace

Result<Placement> predict(const std::vector<Device>& devices, const std::vector<LinkFigures>& links,
                          const ModelDemand& model, const PlanOptions& options,
                          const std::vector<StagePlan>& stages) {
  SHOAL_TRY(Running running, make_running(devices, links, model, options, stages));
  return describe(running.problem, devices, running.groups, running.cuts);
}

Result<std::vector<double>> predict_step(const std::vector<Device>& devices,
                                         const std::vector<LinkFigures>& links, const ModelDemand& model,
                                         const std::vector<StagePlan>& stages, uint32_t rows,
                                         uint32_t output_rows) {
  SHOAL_TRY(Running running, make_running(devices, links, model, {}, stages));
  std::vector<double> seconds;
  const Pass pass{static_cast<double>(rows), static_cast<double>(output_rows)};
  for (const Cut& cut : running.cuts)
    seconds.push_back(
        stage_seconds(running.problem, running.groups[cut.group], cut.first_layer, cut.end_layer, pass));
  return seconds;
}

}  // namespace shoal::planner
