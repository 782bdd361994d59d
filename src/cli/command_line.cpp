#include "cli/command_line.h"

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <cstdlib>
#include <filesystem>
#include <fmt/format.h>
#include <string>
#include <vector>

#include "cli/error_line.h"
#include "hub/model_store.h"

namespace shoal::cli {
namespace {

constexpr int kUsageExit = 2;

std::filesystem::path config_file() {
  if (const char* given = std::getenv("XDG_CONFIG_HOME"); given && *given)
    return std::filesystem::path(given) / "shoal/config.toml";
  const char* home = std::getenv("HOME");
  return home ? std::filesystem::path(home) / ".config/shoal/config.toml" : std::filesystem::path();
}

const CLI::App* find_command(const CLI::App& app, const std::string& name) {
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; })) {
    if (command->get_name() == name) return command;
  }
  return nullptr;
}

// A config file whose values give way to the environment, as they do to flags.
class ConfigBelowEnvironment final : public CLI::ConfigTOML {
 public:
  explicit ConfigBelowEnvironment(const CLI::App& app) : app_(app) {}

  std::vector<CLI::ConfigItem> from_config(std::istream& input) const override {
    std::vector<CLI::ConfigItem> kept;
    for (auto& item : CLI::ConfigTOML::from_config(input)) {
      if (!is_overridden(item)) kept.push_back(std::move(item));
    }
    return kept;
  }

 private:
  bool is_overridden(const CLI::ConfigItem& item) const {
    const CLI::App* app = &app_;
    for (const auto& parent : item.parents) {
      app = find_command(*app, parent);
      if (app == nullptr) return false;
    }
    const CLI::Option* option = app->get_option_no_throw("--" + item.name);
    return option != nullptr && !option->get_envname().empty() &&
           std::getenv(option->get_envname().c_str()) != nullptr;
  }

  const CLI::App& app_;
};

int report_usage(std::string message, const std::string& hint) {
  report_failure({ErrorCode::invalid_argument, std::move(message), hint});
  return kUsageExit;
}

std::string did_you_mean(const std::string& wanted, const std::vector<std::string>& names) {
  const std::string hint = hub::nearest_names_hint(wanted, names);
  return hint.starts_with("did you mean") ? hint : std::string();
}

std::vector<std::string> command_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; })) {
    if (!command->get_group().empty()) names.push_back(command->get_name());
  }
  return names;
}

std::vector<std::string> flag_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::Option* option : app.get_options()) {
    for (const auto& name : option->get_lnames()) names.push_back("--" + name);
  }
  return names;
}

// What was not understood, in words that name the nearest flag or command.
int report_extras(const CLI::App& app, const std::vector<std::string>& extras) {
  const auto flag =
      std::ranges::find_if(extras, [](const std::string& word) { return word.starts_with('-'); });
  const std::string where = app.get_parent() ? fmt::format(" for 'shoal {}'", app.get_name()) : std::string();
  const std::string help = fmt::format("see `shoal {}--help`", app.get_parent() ? app.get_name() + " " : "");
  if (flag != extras.end()) {
    const std::string name = flag->substr(0, flag->find('='));
    const std::string near = did_you_mean(name, flag_names(app));
    return report_usage(fmt::format("unknown flag '{}'{}", name, where), near.empty() ? help : near);
  }
  if (extras.empty()) return report_usage("cannot understand the arguments" + where, help);
  if (!app.get_parent()) {
    const std::string near = did_you_mean(extras.front(), command_names(app));
    return report_usage(fmt::format("unknown command '{}'", extras.front()),
                        near.empty() ? "see `shoal --help`" : near);
  }
  return report_usage(fmt::format("unexpected word '{}'{}", extras.front(), where), help);
}

int report_parse_error(const CLI::App& app, const CLI::ParseError& error) {
  const auto chosen = app.get_subcommands();
  const CLI::App& command = chosen.empty() ? app : *chosen.back();
  if (dynamic_cast<const CLI::ExtrasError*>(&error)) return report_extras(command, command.remaining());
  if (dynamic_cast<const CLI::ConfigError*>(&error)) {
    constexpr std::string_view kPrefix = "INI was not able to parse ";
    const std::string_view what(error.what());
    return report_usage(what.starts_with(kPrefix) ? fmt::format("the config file has an unknown entry '{}'",
                                                                what.substr(kPrefix.size()))
                                                  : fmt::format("the config file: {}", what),
                        "sections are commands, entries are their flags without dashes");
  }
  const std::string place = chosen.empty() ? std::string() : command.get_name() + ": ";
  return report_usage(place + error.what(),
                      fmt::format("see `shoal {}--help`", chosen.empty() ? "" : command.get_name() + " "));
}

void describe(CLI::App& app, const std::string& config) {
  app.description(
      "shoal pools the machines of a local network to run language models none of them could hold alone.");
  app.footer(fmt::format(
      "Start with `shoal serve --model shoal-demo`, then `shoal run shoal-demo` in another terminal.\n"
      "Flags have environment twins (--port: SHOAL_PORT); {} may hold them too.\n"
      "SHOAL_LOG=debug|info|warning|error sets how much is logged.",
      config.empty() ? "a file given with --config" : config));
  app.set_version_flag("--version", "shoal " SHOAL_VERSION, "Print the version and exit");
  app.set_help_all_flag("--help-all", "Help for every command");
  app.set_config("--config", config, "A TOML file with a [serve], [run], … section of flags each");
  app.allow_config_extras(CLI::config_extras_mode::error);
  app.config_formatter(std::make_shared<ConfigBelowEnvironment>(app));
  app.get_formatter()->column_width(34);
  app.require_subcommand(0, 1);
}

}  // namespace

int run_command_line(int argc, const char* const* argv) {
  CLI::App app;
  app.name("shoal");
  describe(app, config_file().string());
  int exit_code = 0;
  add_node_commands(app, exit_code);
  add_ask_commands(app, exit_code);
  add_offline_commands(app, exit_code);
  // Named before the rest is looked at: a mistyped command makes its flags unknown, too.
  if (argc > 1 && argv[1][0] != '-' && argv[1][0] != '\0' && find_command(app, argv[1]) == nullptr) {
    return report_extras(app, {argv[1]});
  }
  try {
    app.parse(argc, argv);
    if (app.get_subcommands().empty()) fmt::print("{}", app.help());
  } catch (const CLI::CallForHelp& help) {
    return app.exit(help);
  } catch (const CLI::CallForAllHelp& help) {
    return app.exit(help);
  } catch (const CLI::CallForVersion& version) {
    return app.exit(version);
  } catch (const CLI::ParseError& error) {
    return report_parse_error(app, error);
  }
  return exit_code;
}

}  // namespace shoal::cli
