#include "cli/ask_commands.h"

#include <atomic>
#include <chrono>
#include <fmt/format.h>
#include <thread>

#include "cli/error_line.h"
#include "cli/http_client.h"
#include "cli/loading_line.h"
#include "cli/model_argument.h"
#include "cli/terminal.h"

namespace shoal::cli {
namespace {

// Asks, and prints the node's JSON or the text made of it.
int show(const AskOptions& options, std::string_view method, std::string_view path,
         std::string (*text)(const Json&)) {
  const auto client = HttpClient::to(options.url, options.api_key);
  if (!client) return report_failure(client.error());
  const auto answer = client->json(method, path);
  if (!answer) return report_failure(answer.error());
  fmt::print("{}", options.json ? to_pretty_text(*answer) + "\n" : text(*answer));
  return 0;
}

// Everything but letters, digits and -._~ escaped.
std::string percent_encode(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       c == '-' || c == '.' || c == '_' || c == '~';
    out += plain ? std::string(1, c) : fmt::format("%{:02X}", static_cast<unsigned char>(c));
  }
  return out;
}

}  // namespace

int run_ps(const AskOptions& options) {
  return show(options, "GET", "/v1/cluster", instances_table);
}
int run_nodes(const AskOptions& options) {
  return show(options, "GET", "/v1/cluster", nodes_table);
}
int run_links(const AskOptions& options) {
  return show(options, "GET", "/v1/cluster", links_table);
}
int run_models(const AskOptions& options) {
  return show(options, "GET", "/v1/models", models_table);
}

int run_stop(const AskOptions& options, const std::string& instance_or_model) {
  const auto client = HttpClient::to(options.url, options.api_key);
  if (!client) return report_failure(client.error());
  const auto answer = client->json("DELETE", "/v1/instances/" + percent_encode(instance_or_model));
  if (!answer) return report_failure(answer.error());
  fmt::print("{}\n", options.json ? to_pretty_text(*answer) : fmt::format("stopped {}", instance_or_model));
  return 0;
}

int run_place(const PlaceCommand& command) {
  const auto client = HttpClient::to(command.ask.url, command.ask.api_key);
  if (!client) return report_failure(client.error());
  JsonObject body;
  body["model"] = model_argument(command.model);
  body["preview"] = command.preview;
  body["min_nodes"] = command.minimum_nodes;
  if (command.context_tokens) body["context"] = *command.context_tokens;
  if (command.concurrency) body["concurrency"] = *command.concurrency;
  for (const auto& [name, choice] : {std::pair("strategy", &command.strategy),
                                     {"objective", &command.objective},
                                     {"wire", &command.wire}}) {
    if (!choice->empty()) body[name] = *choice;
  }
  std::optional<LoadingLine> loading;
  if (!command.preview) loading.emplace(*client, model_argument(command.model));
  const auto answer = client->json("POST", "/v1/placements", to_text(body));
  loading.reset();
  if (!answer) return report_failure(answer.error());
  if (command.ask.json) {
    fmt::print("{}\n", to_pretty_text(*answer));
  } else {
    fmt::print("{}", command.preview ? placements_text(*answer) : instance_text(*answer));
  }
  return 0;
}

}  // namespace shoal::cli
