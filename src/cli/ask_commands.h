// Commands that ask a running node over HTTP: ps, nodes, links, models, place, stop.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/json.h"

namespace shoal::cli {

struct AskOptions {
  std::string url = "http://localhost:8000";
  std::string api_key;
  bool json = false;
};

struct PlaceCommand {
  AskOptions ask;
  std::string model;
  bool preview = false;
  uint32_t minimum_nodes = 1;
  std::optional<uint32_t> context_tokens;
  std::optional<uint32_t> concurrency;
  std::string strategy, objective, wire;  // empty: what the node takes by itself
};

// Each prints its table (or the node's JSON) and returns the exit code; on failure one line went to stderr.
int run_ps(const AskOptions& options);
int run_nodes(const AskOptions& options);
int run_links(const AskOptions& options);
int run_models(const AskOptions& options);
int run_place(const PlaceCommand& command);
int run_stop(const AskOptions& options, const std::string& instance_or_model);

// The tables, from what the node answers. Members that are missing or of another type show as "-".
std::string instances_table(const Json& cluster);
std::string nodes_table(const Json& cluster);
std::string links_table(const Json& cluster);
std::string models_table(const Json& models);
std::string placements_text(const Json& preview);
std::string instance_text(const Json& instance);

// How far the loading of `model` is, 0 to 1, over all its workers; nullopt when it does not load.
std::optional<double> loading_progress(const Json& cluster, std::string_view model);

}  // namespace shoal::cli
