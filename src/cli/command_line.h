// The words and flags of `shoal`. Parsing and its mistakes are here; what a command does is in its own file.
#pragma once

namespace CLI {
class App;
}

namespace shoal::cli {

// Runs the command that the arguments name. 0: done; 1: it failed; 2: the arguments are wrong. In both of the
// latter cases exactly one line starting with "shoal: " went to stderr.
int run_command_line(int argc, const char* const* argv);

// Each adds its commands to `app`; running one stores its exit code.
void add_node_commands(CLI::App& app, int& exit_code);     // serve, run, worker
void add_ask_commands(CLI::App& app, int& exit_code);      // ps, nodes, models, place, stop
void add_offline_commands(CLI::App& app, int& exit_code);  // logits, tokenize, detokenize, render, doctor

}  // namespace shoal::cli
