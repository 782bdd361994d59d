// The node as one who measures: its machine at the first start, its links when it meets others and now and
// then.
#include <algorithm>

#include "base/log.h"
#include "base/system.h"
#include "serving/node.h"

namespace shoal::serving {

void Node::start_measuring() {
  const uint32_t cores = usable_core_count();
  machine_survey_ = std::make_unique<MachineSurvey>(
      io_,
      MachineSurvey::Options{.data_directory = options_.data_directory,
                             .executable = options_.executable,
                             .threads = options_.threads != 0 ? std::min(options_.threads, cores) : cores,
                             .isa = options_.isa,
                             .again = options_.measure_again,
                             .given = options_.figures});
  machine_survey_->start([this](const MachineFigures& figures) {
    if (!cluster_) return;
    cluster_->update_self([&](cluster::NodeFact& fact) { show_figures(fact, figures); });
  });
  link_survey_ = std::make_unique<LinkSurvey>(
      io_, bus_.self(),
      options_.listen_addresses.empty() ? std::vector<std::string>{"0.0.0.0"} : options_.listen_addresses,
      LinkSurvey::Ports{.nodes = [this] { return cluster_->nodes(); },
                        .busy = [this] { return steps_may_run(); },
                        .send = [this](const cluster::NodeId& receiver, std::string_view topic,
                                       const Bytes& payload) { send(receiver, topic, payload); },
                        .publish =
                            [this](std::vector<cluster::LinkFact> links) {
                              cluster_->update_self(
                                  [&](cluster::NodeFact& fact) { fact.links = std::move(links); });
                            }});
}

void Node::show_figures(cluster::NodeFact& fact, const MachineFigures& figures) const {
  log_info("node", "{}: memory {:.1f} GB/s, weights of 8 bits {:.1f} Gflop/s", options_.name,
           figures.decode_bytes_per_second / 1e9, figures.prefill_flops_per_second / 1e9);
  fact.decode_bytes_per_second = figures.decode_bytes_per_second;
  fact.prefill_flops_per_second = figures.prefill_flops_per_second;
  fact.weight_rates = figures.weight_rates;
}

// Owners tell every node what their instances do; what they told may be two seconds old.
bool Node::steps_may_run() const {
  if (machine_survey_->measuring()) return true;  // it would be disturbed, too
  for (const auto& [instance, owner] : owners_) {
    const scheduler::Metrics metrics = owner->metrics();
    if (metrics.active + metrics.waiting > 0) return true;
  }
  return std::ranges::any_of(figures_, [this](const auto& one) {
    return models_here_.contains(one.first) && one.second.active + one.second.waiting > 0;
  });
}

}  // namespace shoal::serving
