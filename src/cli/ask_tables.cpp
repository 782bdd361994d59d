// The tables of ps, models and place, made of a node's JSON.
#include <fmt/format.h>

#include "base/memory.h"
#include "cli/ask_commands.h"
#include "cli/json_cells.h"
#include "cli/terminal.h"

namespace shoal::cli {
namespace {

using Align = Table::Align;

std::string layers(const Json& stage) {
  const auto first = number(stage, "first_layer"), end = number(stage, "end_layer");
  return first && end ? fmt::format("{}-{}", *first, *end - 1) : "-";
}

// "ada 0-11, bob+cleo 12-23"
std::string stages_in_words(const Json& instance) {
  std::string out;
  for (const Json& stage : list(instance, "stages")) {
    std::string names;
    for (const Json& rank : list(stage, "ranks"))
      names += (names.empty() ? "" : "+") + text(rank, "node_name");
    out += fmt::format("{}{} {}", out.empty() ? "" : ", ", names.empty() ? text(stage, "node_name") : names,
                       layers(stage));
  }
  return out.empty() ? "-" : out;
}

std::string state_in_words(const Json& cluster, const Json& instance) {
  const std::string state = text(instance, "state");
  if (state == "loading") {
    if (const auto progress = loading_progress(cluster, text(instance, "model")))
      return fmt::format("loading {:.0f} %", *progress * 100);
  }
  const Json* error = member(instance, "error");
  return error && error->is_object() ? fmt::format("{}: {}", state, text(*error, "message")) : state;
}

}  // namespace

std::optional<double> loading_progress(const Json& cluster, std::string_view model) {
  std::string id;
  size_t ranks = 0;
  for (const Json& instance : list(cluster, "instances")) {
    if (text(instance, "state") != "loading" ||
        (text(instance, "model") != model && text(instance, "id") != model))
      continue;
    id = text(instance, "id");
    for (const Json& stage : list(instance, "stages"))
      ranks += std::max<size_t>(1, list(stage, "ranks").size());
  }
  if (ranks == 0) return {};
  double sum = 0;
  for (const Json& node : list(cluster, "nodes")) {
    for (const Json& worker : list(node, "workers")) {
      if (text(worker, "instance") != id) continue;
      const std::string state = text(worker, "state");
      sum += state == "loaded" || state == "ready" ? 1 : number(worker, "progress").value_or(0);
    }
  }
  return std::min(1.0, sum / static_cast<double>(ranks));
}

std::string instances_table(const Json& cluster) {
  Table table({{"MODEL"},
               {"STATE"},
               {"NODES AND LAYERS"},
               {"CONTEXT", Align::right},
               {"TOK/S", Align::right},
               {"PREDICTED", Align::right},
               {"ACTIVE", Align::right},
               {"WAITING", Align::right},
               {"ID"}});
  for (const Json& instance : list(cluster, "instances")) {
    if (text(instance, "state") == "stopped") continue;  // as wished; a failure is told while it is there
    table.add({text(instance, "model"), state_in_words(cluster, instance), stages_in_words(instance),
               text(instance, "context_tokens"), decimal(instance, "measured_tokens_per_second", 1),
               decimal(instance, "predicted_tokens_per_second", 1), text(instance, "active_sequences"),
               text(instance, "waiting_requests"), text(instance, "id")});
  }
  std::string advice;
  for (const Json& instance : list(cluster, "instances")) {
    for (const Json& words : list(instance, "advice"))
      advice += fmt::format("{}: {}\n", text(instance, "model"),
                            words.is_string() ? printable(words.get_string()) : "");
  }
  return table.empty() ? "no model is being served; place one with `shoal place MODEL`\n"
                       : table.text() + advice;
}

std::string models_table(const Json& models) {
  Table table({{"NAME"}, {"ARCHITECTURE"}, {"SIZE", Align::right}, {"SERVED"}});
  for (const Json& model : list(models, "data")) {
    table.add({text(model, "id"), text(model, "architecture"), bytes(model, "bytes"),
               text(model, "served") == "true" ? "yes" : "no"});
  }
  return table.empty() ? "this node holds no models\n" : table.text();
}

namespace {

// "3.20", and "3.20 (sums 0.41)" where ranks add up what they have.
std::string stage_milliseconds(const Json& stage) {
  const std::string sums = decimal(stage, "sum_milliseconds", 2);
  return decimal(stage, "decode_milliseconds", 2) + (sums == "-" ? "" : fmt::format(" (sums {})", sums));
}

// A row for each stage, or for each rank of a stage that several share.
void add_stage(Table& table, size_t number, const Json& stage) {
  const JsonArray& ranks = list(stage, "ranks");
  const std::string hop = decimal(stage, "hop_milliseconds", 2);
  if (ranks.size() < 2) {
    table.add({fmt::format("{}", number), text(stage, "node_name"), layers(stage), "all",
               bytes(stage, "memory_bytes"), stage_milliseconds(stage), hop});
    return;
  }
  for (size_t rank = 0; rank < ranks.size(); ++rank) {
    const bool first = rank == 0;
    table.add({first ? fmt::format("{}", number) : "", text(ranks[rank], "node_name"),
               first ? layers(stage) : "", decimal(ranks[rank], "share", 1, 0.1) + " %",
               bytes(ranks[rank], "memory_bytes"), first ? stage_milliseconds(stage) : "", first ? hop : ""});
  }
}

// "f32; as bf16 15.1 tok/s" where the wire counts.
std::string wire_in_words(const Json& placement) {
  const auto exact = number(placement, "predicted_tokens_per_second");
  const auto rounded = number(placement, "predicted_bf16_tokens_per_second");
  std::string out = text(placement, "wire");
  if (exact && rounded && out == "f32" && *rounded > *exact * 1.01)
    out += fmt::format(" (bf16 would give {:.1f} tok/s)", *rounded);
  return out;
}

}  // namespace

std::string placements_text(const Json& preview) {
  std::string out;
  size_t rank = 0;
  for (const Json& placement : list(preview, "placements")) {
    out += fmt::format(
        "{}{}. {}: {} tok/s for one, {} for {} at once, first token after {} s; context {}, wire {}\n",
        rank == 0 ? "" : "\n", rank + 1, text(placement, "strategy"),
        decimal(placement, "predicted_tokens_per_second", 1),
        decimal(placement, "predicted_batch_tokens_per_second", 1), text(placement, "concurrency"),
        decimal(placement, "predicted_first_token_seconds", 2), text(placement, "context_tokens"),
        wire_in_words(placement));
    ++rank;
    Table table({{"   STAGE", Align::right},
                 {"NODE"},
                 {"LAYERS", Align::right},
                 {"SHARE", Align::right},
                 {"MEMORY", Align::right},
                 {"MS/TOKEN", Align::right},
                 {"HOP MS", Align::right}});
    size_t stage_number = 0;
    for (const Json& stage : list(placement, "stages")) add_stage(table, ++stage_number, stage);
    out += table.text();
    for (const Json& reason : list(placement, "reasons")) {
      out += fmt::format("   - {}\n", reason.is_string() ? printable(reason.get_string()) : to_text(reason));
    }
  }
  return out.empty() ? "no placement was found\n" : out;
}

std::string instance_text(const Json& instance) {
  return fmt::format("{} is {} on {} ({} tok/s predicted, context {} tokens), instance {}\n",
                     text(instance, "model"), text(instance, "state"), stages_in_words(instance),
                     decimal(instance, "predicted_tokens_per_second", 1), text(instance, "context_tokens"),
                     text(instance, "id"));
}

}  // namespace shoal::cli
