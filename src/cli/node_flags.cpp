// Declares serve, run and the hidden worker and measure: the commands that hold a node or are part of one.
#include <memory>
#include <unistd.h>

#include "base/limits.h"
#include "cli/command_line.h"
#include "cli/flags.h"
#include "cli/run_command.h"
#include "cli/serve_command.h"
#include "serving/machine_survey.h"
#include "worker/worker_client.h"

namespace shoal::cli {
namespace {

void add_network_flags(CLI::App& command, ServeOptions& options) {
  with_twin(command.add_option("--port", options.port, "Port of the HTTP API; 0 takes a free one"))
      ->check(within(0, 65535))
      ->type_name("PORT")
      ->capture_default_str();
  with_twin(command.add_option(
                "--listen", options.listen,
                "Numeric address that the API (besides loopback) and the cluster use; 0.0.0.0 is all. "
                "Default: API on loopback only, cluster on all"))
      ->type_name("ADDR");
  with_twin(command.add_option("--name", options.name, "Name of this node for people; default the host's"))
      ->type_name("NAME");
  with_twin(
      command.add_option("--cluster", options.cluster, "Nodes of the same cluster name find each other"))
      ->type_name("NAME")
      ->capture_default_str();
  with_twin(command.add_option("--cluster-port", options.cluster_port,
                               "Port of the traffic between nodes; 0 takes a free one"))
      ->check(within(0, 65535))
      ->type_name("PORT")
      ->capture_default_str();
  with_twin(
      command.add_option("--peer", options.peers,
                         "Another node's cluster port, where multicast does not reach; may be repeated"))
      ->type_name("HOST:PORT");
  with_twin(command.add_option("--api-key", options.api_key, "Ask this key of every client of the API"))
      ->type_name("KEY");
  with_twin(command.add_option("--allow-origin", options.allowed_origins,
                               "Let pages of this site use the API; may be repeated"))
      ->type_name("ORIGIN");
}

void add_serve(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand(
      "serve", "Run a node: it finds the others of its cluster and answers at http://localhost:8000");
  const auto options = std::make_shared<ServeOptions>();
  add_network_flags(*command, *options);
  add_data_flag(*command, options->data_directory);
  with_twin(add_bytes(*command, "--memory", options->memory_bytes,
                      "Memory that models may take, such as 8GiB; default most of what is free"));
  with_twin(add_threads(*command, options->threads, "Threads that compute; default all cores"));
  with_twin(command->add_flag("--measure", options->measure,
                              "Measure this machine again instead of using the figures of an earlier start"));
  with_twin(command->add_option("--model", options->model, "Serve this model at once: a name or a path"))
      ->type_name("MODEL");
  with_twin(command->add_option("--min-nodes", options->minimum_nodes,
                                "Wait for so many nodes and cut the model over them"))
      ->check(within(uint64_t{1}, limits::kMaxNodes))
      ->type_name("N");
  with_twin(command->add_option("--context", options->context_tokens,
                                "Tokens of context that the model is placed with"))
      ->check(within(uint64_t{1}, limits::kMaxContextTokens))
      ->type_name("N");
  command->footer("Ctrl-C stops the node; requests in progress get some seconds to end.");
  command->callback([options, &exit_code] { exit_code = run_serve(*options); });
}

void add_run(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand("run", "Chat with a model in the terminal, or answer one prompt");
  const auto options = std::make_shared<RunOptions>();
  command->add_option("MODEL", options->model, "Name of a model, or a path")->required();
  command->add_option("PROMPT", options->prompt,
                      "Answer this and exit; without it, standard input is read when it is not a terminal");
  command->add_option("--system", options->system, "A system message")->type_name("TEXT");
  command->add_option("--temperature", options->temperature, "0 always takes the likeliest token")
      ->check(within(0.0, 2.0))
      ->type_name("T");
  command->add_option("--seed", options->seed, "For the same answer again")->type_name("N");
  command->add_option("--max-tokens", options->max_tokens, "Longest answer")
      ->check(within(1U, 1U << 30))
      ->type_name("N");
  add_ask_flags(*command, options->ask);
  with_twin(add_bytes(*command, "--memory", options->memory_bytes,
                      "Memory of a node that has to be started for this"));
  with_twin(add_threads(*command, options->threads, "Threads of a node that has to be started for this"));
  command->footer(
      "When no node answers at the URL, one is started inside this process for as long as the chat lasts.");
  command->callback([options, &exit_code] { exit_code = run_chat(*options); });
}

void add_worker(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand("worker", "Run one rank of an instance; started by nodes");
  command->group("");  // hidden
  const auto socket = std::make_shared<int>(-1);
  command->add_option("--fd", *socket, "The socket to the node")->required();
  command->callback([socket, &exit_code] { exit_code = worker::run_worker(*socket); });
}

void add_measure(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand("measure", "Measure this machine; started by nodes");
  command->group("");  // hidden
  struct Measure {
    int fd = STDOUT_FILENO;
    uint32_t threads = usable_core_count();
    std::string isa;
  };
  const auto measure = std::make_shared<Measure>();
  command->add_option("--fd", measure->fd, "Where the figures go")->type_name("FD");
  add_threads(*command, measure->threads, "Threads that compute");
  command->add_option("--isa", measure->isa, "Kernels to measure")->type_name("ISA");
  command->callback([measure, &exit_code] {
    exit_code = serving::run_measure(measure->fd, measure->threads, measure->isa);
  });
}

}  // namespace

void add_node_commands(CLI::App& app, int& exit_code) {
  add_serve(app, exit_code);
  add_run(app, exit_code);
  add_worker(app, exit_code);
  add_measure(app, exit_code);
}

}  // namespace shoal::cli
