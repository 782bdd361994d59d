// Declares ps, nodes, links, models, place and stop.
#include <array>
#include <memory>

#include "base/limits.h"
#include "cli/command_line.h"
#include "cli/flags.h"
#include "planner/names.h"

namespace shoal::cli {
namespace {

void add_list_command(CLI::App& app, int& exit_code, const std::string& name, const std::string& description,
                      int (*run)(const AskOptions&)) {
  CLI::App* command = app.add_subcommand(name, description);
  const auto options = std::make_shared<AskOptions>();
  add_ask_flags(*command, *options);
  add_json_flag(*command, options->json);
  command->callback([options, run, &exit_code] { exit_code = run(*options); });
}

template <size_t count>
void add_choice(CLI::App& command, const char* flag, std::string& choice,
                const std::array<std::string_view, count>& names, const char* help) {
  with_twin(command.add_option(flag, choice, help))
      ->check(CLI::IsMember(std::vector<std::string>(names.begin(), names.end())));
}

void add_place(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand(
      "place", "Serve a model: plan its cut over the nodes, load it, wait until it is ready");
  const auto place = std::make_shared<PlaceCommand>();
  command->add_option("MODEL", place->model, "Name of a model that is held, or a path")->required();
  command->add_flag("--preview", place->preview,
                    "Only show the possible placements, best first, with what they should give");
  with_twin(command->add_option("--min-nodes", place->minimum_nodes, "Use at least so many nodes"))
      ->check(within(uint64_t{1}, limits::kMaxNodes))
      ->type_name("N");
  with_twin(command->add_option("--context", place->context_tokens, "Tokens of context to hold"))
      ->check(within(uint64_t{1}, limits::kMaxContextTokens))
      ->type_name("N");
  with_twin(command->add_option("--concurrency", place->concurrency, "Conversations at once to plan for"))
      ->check(within(size_t{1}, limits::kMaxActiveSequences))
      ->type_name("N");
  add_choice(*command, "--strategy", place->strategy, planner::kStrategyNames,
             "How nodes share the model: 'pipeline' gives each some layers, 'tensor' a part of every layer, "
             "'hybrid' both; 'auto' takes the fastest that gives a single node's tokens");
  add_choice(*command, "--objective", place->objective, planner::kObjectiveNames,
             "What to plan for: tokens/s of one user, of all together, or the first token");
  add_choice(*command, "--wire", place->wire, planner::kWireFormatNames,
             "Of what passes between stages: 'f32' is exact, 'bf16' half the bytes");
  add_ask_flags(*command, place->ask);
  add_json_flag(*command, place->ask.json);
  command->callback([place, &exit_code] { exit_code = run_place(*place); });
}

void add_stop(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand("stop", "Stop serving a model and free its memory on every node");
  struct Stop {
    AskOptions ask;
    std::string target;
  };
  const auto stop = std::make_shared<Stop>();
  command->add_option("MODEL", stop->target, "Name of a served model, or the id of an instance")->required();
  add_ask_flags(*command, stop->ask);
  add_json_flag(*command, stop->ask.json);
  command->callback([stop, &exit_code] { exit_code = run_stop(stop->ask, stop->target); });
}

}  // namespace

void add_ask_commands(CLI::App& app, int& exit_code) {
  add_list_command(app, exit_code, "ps",
                   "Show the models being served, where they are cut and how fast they are", run_ps);
  add_list_command(app, exit_code, "nodes",
                   "Show the nodes of the cluster: memory, measured speed by kind of weights, models", run_nodes);
  add_list_command(app, exit_code, "links",
                   "Show what lies between the nodes: kind, round trips and bandwidth as measured", run_links);
  add_list_command(app, exit_code, "models", "Show the models that the cluster holds", run_models);
  add_list_command(app, exit_code, "list", "The same as models", run_models);
  add_place(app, exit_code);
  add_stop(app, exit_code);
}

}  // namespace shoal::cli
