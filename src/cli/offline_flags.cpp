// Declares show, logits, tokenize, detokenize, render and doctor: what needs no cluster.
#include <memory>

#include "base/limits.h"
#include "cli/command_line.h"
#include "cli/doctor_command.h"
#include "cli/flags.h"
#include "cli/logits_command.h"
#include "cli/show_command.h"
#include "cli/tokenize_command.h"

namespace shoal::cli {
namespace {

constexpr const char* kModelWords = "A .gguf file, or a folder with config.json and safetensors";

void add_show(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand(
      "show", "Print what a model is: architecture, layers, sizes, types, memory, tokenizer, files");
  const auto options = std::make_shared<ShowOptions>();
  command->add_option("MODEL", options->model, "Name of a model that is here, or a path")->required();
  add_data_flag(*command, options->data_directory);
  add_json_flag(*command, options->json);
  command->callback([options, &exit_code] { exit_code = run_show(*options); });
}

void add_logits(CLI::App& app, int& exit_code) {
  CLI::App* command =
      app.add_subcommand("logits", "Print what a model computes for given tokens, for checking numerics");
  const auto options = std::make_shared<LogitsOptions>();
  command->add_option("PATH", options->path, kModelWords)->required();
  command->add_option("--tokens", options->tokens, "Token ids: 1,2,3")->required()->type_name("IDS");
  command->add_option("--positions", options->positions, "Logits of which tokens: all or last")
      ->type_name("WHICH")
      ->capture_default_str();
  command->add_option("--stages", options->stages, "Cut the model into so many stages")
      ->type_name("N")
      ->capture_default_str();
  command->add_option("--ranks", options->ranks, "Cut each stage over so many tensor-parallel ranks")
      ->type_name("N")
      ->capture_default_str();
  command->add_option("--shares", options->shares, "What each rank holds, as weights: 2,1,1; default equal")
      ->type_name("WEIGHTS");
  command->add_option("--generate", options->generate, "Print so many greedy tokens instead of logits")
      ->type_name("N");
  command->add_option("--kv", options->kv, "Type of the KV cache: f32, f16 or q8")
      ->type_name("TYPE")
      ->capture_default_str();
  command
      ->add_option("--isa", options->isa,
                   "Kernels: portable, avx2, avx512, amx or neon; default the fastest here")
      ->type_name("NAME");
  command->add_option("--chunk", options->chunk, "Prompt tokens of one step")
      ->type_name("N")
      ->capture_default_str();
  add_threads(*command, options->threads, "Threads; 0 means all cores");
  add_json_flag(*command, options->json);
  command->callback([options, &exit_code] { exit_code = run_logits(*options); });
}

void add_tokenize(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand("tokenize", "Print the token ids of a text");
  const auto options = std::make_shared<TokenizeOptions>();
  command->add_option("PATH", options->path, kModelWords)->required();
  command->add_option("--text-file", options->text_file, "The text, in UTF-8")->required()->type_name("FILE");
  command->add_flag("!--no-special", options->add_special_tokens,
                    "Do not add the tokens that begin and end a text");
  add_json_flag(*command, options->json);
  command->callback([options, &exit_code] { exit_code = run_tokenize(*options); });
}

void add_detokenize(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand("detokenize", "Print the text of token ids");
  const auto options = std::make_shared<DetokenizeOptions>();
  command->add_option("PATH", options->path, kModelWords)->required();
  command->add_option("--tokens", options->tokens, "Token ids: 1,2,3")->required()->type_name("IDS");
  command->add_flag("--skip-special", options->skip_special_tokens, "Leave control tokens out");
  add_json_flag(*command, options->json);
  command->callback([options, &exit_code] { exit_code = run_detokenize(*options); });
}

void add_render(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand("render", "Print what a model's chat template makes of messages");
  const auto options = std::make_shared<RenderOptions>();
  command->add_option("PATH", options->path, kModelWords)->required();
  command
      ->add_option("--messages", options->messages_file,
                   "JSON: {\"messages\": […], \"tools\": …, \"add_generation_prompt\": …, \"extra\": {…}}")
      ->required()
      ->type_name("FILE");
  add_json_flag(*command, options->json);
  command->callback([options, &exit_code] { exit_code = run_render(*options); });
}

void add_doctor(CLI::App& app, int& exit_code) {
  CLI::App* command =
      app.add_subcommand("doctor", "Check what could keep a node from working here, and say what to do");
  const auto options = std::make_shared<DoctorOptions>();
  with_twin(command->add_option("--port", options->port, "The API's port"))
      ->type_name("PORT")
      ->capture_default_str();
  add_data_flag(*command, options->data_directory);
  add_json_flag(*command, options->json);
  command->callback([options, &exit_code] { exit_code = run_doctor(*options); });
}

}  // namespace

void add_offline_commands(CLI::App& app, int& exit_code) {
  add_show(app, exit_code);
  add_logits(app, exit_code);
  add_tokenize(app, exit_code);
  add_detokenize(app, exit_code);
  add_render(app, exit_code);
  add_doctor(app, exit_code);
}

}  // namespace shoal::cli
