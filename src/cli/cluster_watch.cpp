#include "cli/cluster_watch.h"

#include <fmt/format.h>

#include "base/memory.h"
#include "cli/ask_commands.h"
#include "cli/terminal.h"

namespace shoal::cli {
namespace {

std::string text(const JsonObject& object, std::string_view name) {
  const auto value = get_string(object, name);
  return value && *value ? printable(**value) : std::string();
}

const JsonArray& list(const Json& cluster, std::string_view name) {
  static const JsonArray kNone;
  if (!cluster.is_object()) return kNone;
  const auto found = get_array(cluster.get_object(), name);
  return found && *found ? **found : kNone;
}

uint64_t count(const JsonObject& object, std::string_view name) {
  const auto value = get_number(object, name);
  return value && *value && **value > 0 ? static_cast<uint64_t>(**value) : 0;
}

std::string why(const JsonObject& instance) {
  const auto error = get_object(instance, "error");
  return error && *error ? text(**error, "message") : std::string("for no stated reason");
}

std::string arrival(const JsonObject& node) {
  return fmt::format("+ {} joined: {}, {} cores, {} free", text(node, "name"), text(node, "cpu"),
                     count(node, "cores"), format_bytes(count(node, "free_memory_bytes")));
}

}  // namespace

std::vector<std::string> ClusterWatch::look(const Json& cluster) {
  std::vector<std::string> lines;
  const std::string self = cluster.is_object() ? text(cluster.get_object(), "self") : std::string();
  std::map<std::string, std::string> nodes;
  for (const Json& node : list(cluster, "nodes")) {
    if (!node.is_object()) continue;
    const std::string id = text(node.get_object(), "id");
    nodes[id] = text(node.get_object(), "name");
    if (id != self && !nodes_.contains(id)) lines.push_back(arrival(node.get_object()));
  }
  for (const auto& [id, name] : nodes_) {
    if (!nodes.contains(id)) lines.push_back(fmt::format("- {} left", name));
  }
  std::map<std::string, std::string> instances;
  for (const Json& instance : list(cluster, "instances")) {
    if (!instance.is_object()) continue;
    const std::string id = text(instance.get_object(), "id"), state = text(instance.get_object(), "state");
    instances[id] = state;
    const auto before = instances_.find(id);
    if (before != instances_.end() && before->second == state) continue;
    if (state == "ready")
      lines.push_back("  " + instance_text(instance).substr(0, instance_text(instance).find('\n')));
    if (state == "loading")
      lines.push_back(fmt::format("  loading {}", text(instance.get_object(), "model")));
    if (state == "failed")
      lines.push_back(
          fmt::format("  {} failed: {}", text(instance.get_object(), "model"), why(instance.get_object())));
  }
  nodes_ = std::move(nodes);
  instances_ = std::move(instances);
  return lines;
}

}  // namespace shoal::cli
