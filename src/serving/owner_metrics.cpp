#include "serving/owner_metrics.h"

#include <fmt/format.h>

#include "serving/metrics.h"

namespace shoal::serving {
namespace {

struct Family {
  std::string_view name;
  std::string_view type;
  std::string_view help;
  double (*value)(const scheduler::Metrics&);
};

constexpr Family kFamilies[] = {
    {"shoal_queue_depth", "gauge", "Requests that wait for a place in an instance.",
     [](const scheduler::Metrics& m) { return static_cast<double>(m.waiting); }},
    {"shoal_active_sequences", "gauge", "Sequences being computed.",
     [](const scheduler::Metrics& m) { return static_cast<double>(m.active); }},
    {"shoal_steps_in_flight", "gauge", "Steps handed to the stages and not back yet.",
     [](const scheduler::Metrics& m) { return static_cast<double>(m.steps_in_flight); }},
    {"shoal_kv_pages", "gauge", "KV pages of an instance.",
     [](const scheduler::Metrics& m) { return static_cast<double>(m.pages_total); }},
    {"shoal_kv_pages_used", "gauge", "KV pages that sequences use.",
     [](const scheduler::Metrics& m) { return static_cast<double>(m.pages_used); }},
    {"shoal_kv_pages_cached", "gauge", "KV pages kept for their content alone.",
     [](const scheduler::Metrics& m) { return static_cast<double>(m.pages_cached); }},
    {"shoal_steps_total", "counter", "Steps handed to the stages.",
     [](const scheduler::Metrics& m) { return static_cast<double>(m.steps); }},
    {"shoal_step_rows_total", "counter", "Token rows in those steps.",
     [](const scheduler::Metrics& m) { return static_cast<double>(m.rows); }},
    {"shoal_preemptions_total", "counter", "Times a sequence gave up its KV pages.",
     [](const scheduler::Metrics& m) { return static_cast<double>(m.preemptions); }},
    {"shoal_prefix_cache_queries_total", "counter", "Prompt tokens looked up in the prefix cache.",
     [](const scheduler::Metrics& m) { return static_cast<double>(m.prompt_tokens); }},
    {"shoal_prefix_cache_hits_total", "counter", "Prompt tokens found in the prefix cache.",
     [](const scheduler::Metrics& m) { return static_cast<double>(m.cached_prompt_tokens); }},
    {"shoal_generated_tokens_total", "counter", "Tokens sampled for all gateways.",
     [](const scheduler::Metrics& m) { return static_cast<double>(m.answer_tokens); }},
};

}  // namespace

void write_owner_metrics(std::string& out,
                         const std::map<std::string, std::unique_ptr<InstanceOwner>, std::less<>>& owners) {
  const auto label = [](const std::string& instance) {
    return fmt::format("instance=\"{}\"", escape_label(instance));
  };
  for (const Family& family : kFamilies) {
    write_family(out, family.name, family.type, family.help);
    for (const auto& [instance, owner] : owners)
      write_sample(out, family.name, label(instance), family.value(owner->metrics()));
  }
  write_family(out, "shoal_stage_step_seconds", "gauge", "Compute time of a step in a stage, recent.");
  for (const auto& [instance, owner] : owners) {
    const std::vector<double>& stages = owner->figures().stage_milliseconds;
    for (size_t stage = 0; stage < stages.size(); ++stage)
      write_sample(out, "shoal_stage_step_seconds", fmt::format("{},stage=\"{}\"", label(instance), stage),
                   stages[stage] / 1000);
  }
  write_family(out, "shoal_decode_tokens_per_second", "gauge", "Of one sequence in decode, recent.");
  for (const auto& [instance, owner] : owners)
    write_sample(out, "shoal_decode_tokens_per_second", label(instance), owner->figures().tokens_per_second);
}

}  // namespace shoal::serving
