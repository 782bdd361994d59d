#include "cli/cluster_watch.h"

#include <fmt/format.h>

#include "base/memory.h"
#include "cli/ask_commands.h"

namespace shoal::cli {
namespace {

std::string text(const JsonObject& object, std::string_view name) {
  const auto value = get_string(object, name);
  return value && *value ? **value : std::string();
}

const JsonArray& list(const Json& cluster, std::string_view name) {
  static const JsonArray kNone;
  if (!cluster.is_object()) return kNone;
  const auto found = get_array(cluster.get_object(), name);
  return found && *found ? **found : kNone;
}

std::string arrival(const JsonObject& node) {
  const auto memory = get_integer(node, "free_memory_bytes", 0, INT64_MAX);
  const auto cores = get_integer(node, "cores", 0, INT64_MAX);
  return fmt::format("+ {} joined: {}, {} cores, {} free", text(node, "name"), text(node, "cpu"),
                     cores && *cores ? **cores : 0,
                     format_bytes(memory && *memory ? static_cast<uint64_t>(**memory) : 0));
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
    if (state == "failed") lines.push_back(fmt::format("  {} failed", text(instance.get_object(), "model")));
  }
  nodes_ = std::move(nodes);
  instances_ = std::move(instances);
  return lines;
}

}  // namespace shoal::cli
