// simulate_cluster: what the planner would do with machines that are not at hand.
//   simulate_cluster CLUSTER.json MODEL.json [--strategy S] [--objective O] [--concurrency N] [--context N]
//                    [--prompt N] [--wire f32|bf16] [--min-nodes N] [--only NAME]…
//   simulate_cluster --published FILE.json     published figures beside what is predicted for them

#include <cmath>
#include <cstdlib>
#include <ctime>
#include <fmt/format.h>
#include <map>
#include <optional>
#include <string>

#include "base/file.h"
#include "base/json.h"
#include "cluster_file.h"
#include "model_file.h"
#include "planner/names.h"

namespace shoal::simulate {
namespace {

constexpr double kGibibyte = 1024.0 * 1024 * 1024;
constexpr uint64_t kMostFileBytes = 1 << 20;

std::unexpected<Error> bad_value(std::string_view flag, std::string_view value) {
  return fail(ErrorCode::invalid_argument, fmt::format("{} does not take '{}'", flag, value));
}

Result<uint32_t> count_of(std::string_view flag, const std::string& value) {
  char* end = nullptr;
  unsigned long parsed = std::strtoul(value.c_str(), &end, 10);
  if (value.empty() || *end != '\0' || parsed == 0 || parsed > 1 << 24) return bad_value(flag, value);
  return static_cast<uint32_t>(parsed);
}

template <class Choice, size_t count>
Result<Choice> choose(const std::array<std::string_view, count>& names, std::string_view flag,
                      const std::string& value) {
  auto choice = planner::choice_of<Choice>(names, value);
  if (!choice) return bad_value(flag, value);
  return *choice;
}

Result<> set_option(const std::string& flag, const std::string& value, planner::PlanOptions& options) {
  if (flag == "--strategy") {
    SHOAL_TRY(options.strategy, choose<planner::Strategy>(planner::kStrategyNames, flag, value));
  } else if (flag == "--objective") {
    SHOAL_TRY(options.objective, choose<planner::Objective>(planner::kObjectiveNames, flag, value));
  } else if (flag == "--wire") {
    SHOAL_TRY(options.wire, choose<planner::WireFormat>(planner::kWireFormatNames, flag, value));
  } else if (flag == "--concurrency") {
    SHOAL_TRY(options.concurrency, count_of(flag, value));
  } else if (flag == "--context") {
    SHOAL_TRY(options.context_tokens, count_of(flag, value));
  } else if (flag == "--prompt") {
    SHOAL_TRY(options.prompt_tokens, count_of(flag, value));
  } else if (flag == "--min-nodes") {
    SHOAL_TRY(options.minimum_nodes, count_of(flag, value));
  } else if (flag == "--only") {
    options.only_nodes.push_back(value);
  } else {
    return fail(ErrorCode::invalid_argument, fmt::format("there is no option {}", flag));
  }
  return {};
}

void print_placement(const planner::Placement& placement, const planner::PlanOptions& options) {
  fmt::print("  {:.2f} tokens/s alone, {:.2f} with {} users, first token of {} after {:.2f} s{}\n",
             placement.tokens_per_second, placement.batch_tokens_per_second, options.concurrency,
             options.prompt_tokens, placement.first_token_seconds, placement.exact ? "" : " (beam)");
  if (options.wire == planner::WireFormat::f32)
    fmt::print("  with --wire bf16: {:.2f} tokens/s, first token after {:.2f} s\n",
               placement.bf16_tokens_per_second, placement.bf16_first_token_seconds);
  for (const planner::StagePlan& stage : placement.stages) {
    fmt::print("    layers {:3}-{:3}  {:6.2f} ms (sums {:.2f}, then a hop of {:.2f}):", stage.first_layer,
               stage.end_layer - 1, stage.decode_seconds * 1e3, stage.all_reduce_seconds * 1e3,
               stage.hop_seconds * 1e3);
    for (const planner::RankPlan& rank : stage.ranks)
      fmt::print(" {} {:.1f} % {:.1f} GiB", rank.node, rank.share_per_mille / 10.0,
                 static_cast<double>(rank.memory_bytes) / kGibibyte);
    fmt::print("\n");
  }
  for (const std::string& reason : placement.reasons) fmt::print("    - {}\n", reason);
}

Result<> simulate(const std::string& cluster_path, const std::string& model_path,
                  const planner::PlanOptions& options) {
  SHOAL_TRY(ClusterFile cluster, read_cluster_file(cluster_path));
  SHOAL_TRY(planner::ModelDemand model, read_model_file(model_path));
  fmt::print("{} on {} ({} devices), {} for {}\n", model.name, cluster.name, cluster.devices.size(),
             planner::to_string(options.strategy), planner::to_string(options.objective));
  const std::clock_t start = std::clock();
  SHOAL_TRY(auto placements, planner::plan(cluster.devices, cluster.links, model, options));
  const double milliseconds = 1e3 * static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
  int number = 1;
  for (const planner::Placement& placement : placements) {
    fmt::print("{}. placement\n", number++);
    print_placement(placement, options);
  }
  fmt::print("planned in {:.1f} ms of processor time\n", milliseconds);
  return {};
}

// One row of a published table.
struct Row {
  std::string cluster, model, strategy;
  uint32_t nodes = 0;
  double tokens_per_second = 0;
};

Result<Row> read_row(const Json& element) {
  if (!element.is_object()) return fail(ErrorCode::malformed, "a row is no object");
  const JsonObject& object = element.get_object();
  Row row;
  SHOAL_TRY(row.cluster, require_string(object, "cluster"));
  SHOAL_TRY(row.model, require_string(object, "model"));
  SHOAL_TRY(row.strategy, require_string(object, "strategy"));
  SHOAL_TRY(int64_t nodes, require_integer(object, "nodes", 1, 256));
  SHOAL_TRY(row.tokens_per_second, require_number(object, "tokens_per_second"));
  row.nodes = static_cast<uint32_t>(nodes);
  return row;
}

// Tokens/s that are predicted, or why there are none.
Result<double> predict_row(const std::filesystem::path& clusters, const std::filesystem::path& models,
                           const Row& row, std::string& model_name) {
  SHOAL_TRY(ClusterFile cluster, read_cluster_file(clusters / row.cluster));
  SHOAL_TRY(planner::ModelDemand model, read_model_file(models / row.model));
  model_name = model.name;
  if (cluster.devices.size() < row.nodes)
    return fail(ErrorCode::invalid_argument, "the cluster has too few nodes");
  planner::PlanOptions options;
  options.context_tokens = 4096;
  options.minimum_nodes = row.nodes;
  for (uint32_t node = 0; node < row.nodes; ++node) options.only_nodes.push_back(cluster.devices[node].node);
  SHOAL_TRY(options.strategy, choose<planner::Strategy>(planner::kStrategyNames, "strategy", row.strategy));
  if (row.nodes == 1) options.strategy = planner::Strategy::pipeline;
  SHOAL_TRY(auto placements, planner::plan(cluster.devices, cluster.links, model, options));
  return placements.front().tokens_per_second;
}

Result<> published(const std::filesystem::path& path) {
  SHOAL_TRY(std::string text, read_text_file(path, kMostFileBytes));
  SHOAL_TRY(JsonObject object, parse_json_object(text, path.string()));
  SHOAL_TRY(const JsonArray* rows, get_array(object, "rows"));
  if (!rows) return fail(ErrorCode::malformed, "'rows' are missing");
  const std::filesystem::path clusters = path.parent_path(), models = clusters.parent_path() / "models";
  fmt::print(
      "one set of efficiencies for all rows: {:.0f} % of bandwidth, {:.0f} % of arithmetic, {:.0f} us a "
      "layer\n",
      kBandwidthEfficiency * 100, kArithmeticEfficiency * 100, kGpuLayerSeconds * 1e6);
  fmt::print("{:28} {:5} {:9} {:>9} {:>9} {:>7}\n", "model", "nodes", "strategy", "published", "predicted",
             "error");
  double sum = 0;
  int counted = 0;
  for (const Json& element : *rows) {
    SHOAL_TRY(Row row, read_row(element));
    std::string model;
    Result<double> predicted = predict_row(clusters, models, row, model);
    if (!predicted) {
      if (predicted.error().code != ErrorCode::out_of_memory) return std::unexpected(predicted.error());
      fmt::print("{:28} {:5} {:9} {:9.2f} does not fit: {}\n", model, row.nodes, row.strategy,
                 row.tokens_per_second, predicted.error().message);
      continue;
    }
    double error = *predicted / row.tokens_per_second - 1;
    sum += std::abs(error), ++counted;
    fmt::print("{:28} {:5} {:9} {:9.2f} {:9.2f} {:+6.0f}%\n", model, row.nodes, row.strategy,
               row.tokens_per_second, *predicted, error * 100);
  }
  if (counted > 0)
    fmt::print("mean of the errors' sizes: {:.0f} % over {} rows\n", sum / counted * 100, counted);
  return {};
}

Result<> run(int count, char** arguments) {
  std::vector<std::string> files;
  planner::PlanOptions options;
  for (int i = 1; i < count; ++i) {
    std::string argument = arguments[i];
    if (!argument.starts_with("--")) {
      files.push_back(std::move(argument));
      continue;
    }
    if (++i == count) return fail(ErrorCode::invalid_argument, argument + " needs a value");
    if (argument == "--published") return published(arguments[i]);
    SHOAL_TRY_VOID(set_option(argument, arguments[i], options));
  }
  if (files.size() != 2)
    return fail(ErrorCode::invalid_argument,
                "usage: simulate_cluster CLUSTER.json MODEL.json [options], or --published FILE");
  return simulate(files[0], files[1], options);
}

}  // namespace
}  // namespace shoal::simulate

int main(int count, char** arguments) {
  auto done = shoal::simulate::run(count, arguments);
  if (done) return 0;
  fmt::print(stderr, "{}\n", done.error().text());
  return 1;
}
