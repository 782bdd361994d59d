// Flags that several commands share, and the checks of their values. Included only where commands are
// declared.
#pragma once

#include <CLI/App.hpp>
#include <CLI/Validators.hpp>
#include <filesystem>
#include <string>

#include "base/limits.h"
#include "base/memory.h"
#include "base/system.h"
#include "cli/ask_commands.h"

namespace shoal::cli {

// A twin in the environment: "--min-nodes" and SHOAL_MIN_NODES.
inline CLI::Option* with_twin(CLI::Option* option) {
  std::string name = "SHOAL_" + option->get_lnames().at(0);
  for (char& c : name) c = c == '-' ? '_' : static_cast<char>(c >= 'a' && c <= 'z' ? c - 'a' + 'A' : c);
  return option->envname(name);
}

// A check whose bounds the help does not repeat; a mistake names them.
template <class T>
CLI::Validator within(T minimum, T maximum) {
  return CLI::Range(minimum, maximum).description("");
}

// A size such as 8GiB, kept in bytes.
inline CLI::Option* add_bytes(CLI::App& app, const std::string& name, uint64_t& bytes,
                              const std::string& description) {
  return app
      .add_option_function<std::string>(
          name,
          [&bytes, name](const std::string& text) {
            const auto parsed = parse_bytes(text);
            if (!parsed) throw CLI::ValidationError(name, parsed.error().text());
            bytes = *parsed;
          },
          description)
      ->type_name("BYTES");
}

inline CLI::Option* add_threads(CLI::App& app, uint32_t& threads, const std::string& description) {
  return app.add_option("--threads", threads, description)
      ->check(within(0U, limits::kMaxThreads))
      ->type_name("N");
}

inline void add_ask_flags(CLI::App& app, AskOptions& ask) {
  with_twin(app.add_option("--url", ask.url, "The node to ask"))->type_name("URL")->capture_default_str();
  with_twin(app.add_option("--api-key", ask.api_key, "The key that guards its API"))->type_name("KEY");
}

inline void add_json_flag(CLI::App& app, bool& json) {
  app.add_flag("--json", json, "Print JSON");
}

inline void add_data_flag(CLI::App& app, std::filesystem::path& directory) {
  directory = data_directory();
  with_twin(app.add_option("--data", directory, "Where the node's state and models are"))
      ->type_name("DIR")
      ->capture_default_str();
}

}  // namespace shoal::cli
