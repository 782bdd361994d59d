// The node as its front ends and its gateway see it: models, instances, placing and stopping, figures.
#include <algorithm>
#include <boost/asio/post.hpp>
#include <fmt/format.h>

#include "base/log.h"
#include "serving/demand.h"
#include "serving/node.h"
#include "serving/owner_metrics.h"

namespace shoal::serving {
namespace {

constexpr double kWorthMentioning = 1.1;  // of another placement: so many times the speed

// "x:latest" and "x" are the same model.
std::string without_latest(std::string_view name) {
  constexpr std::string_view kLatest = ":latest";
  if (name.ends_with(kLatest)) name.remove_suffix(kLatest.size());
  return std::string(name);
}

}  // namespace

GenerationId Node::generate(GenerateRequest request, std::shared_ptr<GenerationListener> listener) {
  if (cluster_) {
    if (const std::optional<cluster::NodeId> holder = holder_elsewhere(request.model))
      return relay_->ask(*holder, std::move(request), std::move(listener));
    return gateway_->generate(std::move(request), std::move(listener));
  }
  boost::asio::post(io_, [listener = std::move(listener), name = options_.name] {
    listener->on_error({ErrorCode::unavailable, fmt::format("node '{}' is stopping", name), ""});
  });
  return 0;
}

void Node::cancel(GenerationId generation) {
  if (Relay::is_relayed(generation)) return relay_->cancel(generation);
  gateway_->cancel(generation);
}

std::optional<cluster::NodeId> Node::holder_elsewhere(const std::string& model_or_instance) const {
  const std::string name = without_latest(model_or_instance);
  const cluster::InstanceFact* instance = cluster_->find_instance(name);
  std::optional<cluster::NodeId> holder;
  for (const cluster::NodeFact& node : cluster_->nodes())
    for (const cluster::HeldModel& held : node.models) {
      if (held.name != name && (instance == nullptr || held.digest != instance->digest)) continue;
      if (node.id == bus_.self()) return std::nullopt;
      // The owner is the best to ask: a hop less.
      if (!holder || (instance != nullptr && node.id == instance->owner)) holder = node.id;
    }
  return holder;
}

void Node::find_card(const std::string& model_or_instance, CardCallback done) {
  if (!cluster_)
    return done(fail(ErrorCode::unavailable, fmt::format("node '{}' is stopping", options_.name)));
  auto announced = [this, model_or_instance,
                    done = std::move(done)](Result<std::shared_ptr<const ModelCard>> card) {
    if (!card) return done(std::unexpected(explain_missing(model_or_instance, card.error())));
    if (cluster_) announce((*card)->stored);
    done(std::move(card));
  };
  for (const cluster::InstanceFact& instance : cluster_->instances())
    if (instance.id == model_or_instance)
      return shelf_->find_digest(instance.digest, instance.model, std::move(announced));
  shelf_->find(model_or_instance, std::move(announced));
}

// Near names are looked for among what the whole cluster holds.
Error Node::explain_missing(const std::string& model, const Error& error) const {
  if (error.code != ErrorCode::not_found || !cluster_) return error;
  std::vector<std::string> names;
  for (const cluster::NodeFact& node : cluster_->nodes())
    for (const cluster::HeldModel& held : node.models)
      if (std::ranges::find(names, held.name) == names.end()) names.push_back(held.name);
  return {error.code, error.message, hub::nearest_names_hint(model, names)};
}

const cluster::InstanceFact* Node::find_serving(const std::string& model_or_instance,
                                                const ModelCard& card) const {
  const auto usable = [](const cluster::InstanceFact* instance) {
    return instance != nullptr && cluster::is_live(instance->state);
  };
  for (const std::string& name : {model_or_instance, card.stored.name}) {
    const cluster::InstanceFact* instance = cluster_->find_instance(name);
    // One of the same name with other files is of no use when there are our own to serve.
    if (usable(instance) && (instance->digest == card.stored.digest || instance->id == name)) return instance;
  }
  for (const cluster::InstanceFact& candidate : cluster_->instances()) {
    const cluster::InstanceFact* instance = cluster_->find_instance(candidate.id);
    if (candidate.digest == card.stored.digest && usable(instance)) return instance;
  }
  return nullptr;
}

void Node::ready_instance(const std::string& model_or_instance, std::shared_ptr<const ModelCard> card,
                          InstanceCallback done) {
  if (!cluster_)
    return done(fail(ErrorCode::unavailable, fmt::format("node '{}' is stopping", options_.name)));
  if (const cluster::InstanceFact* instance = find_serving(model_or_instance, *card)) {
    if (instance->state == cluster::InstanceState::ready) return done(cluster::InstanceFact(*instance));
    waiting_for_instance_[instance->id].push_back(std::move(done));
    return;
  }
  // One placement for however many requests come before its instance shows.
  const bool under_way = placing_.contains(card->stored.digest);
  placing_[card->stored.digest].push_back(std::move(done));
  PlaceOptions options;
  options.model = card->stored.name;
  if (!under_way) place_for_all(std::move(card), options, [](const Result<cluster::InstanceFact>&) {});
}

// Places, and tells the outcome to `done` and to the requests that came meanwhile.
void Node::place_for_all(std::shared_ptr<const ModelCard> card, const PlaceOptions& options,
                         InstanceCallback done) {
  const std::string digest = card->stored.digest;
  placing_[digest];  // from now on requests wait for this one
  place_card(std::move(card), options,
             [this, digest, done = std::move(done)](const Result<cluster::InstanceFact>& outcome) {
               const std::vector<InstanceCallback> callbacks = std::exchange(placing_[digest], {});
               placing_.erase(digest);
               done(outcome);
               for (const InstanceCallback& callback : callbacks) callback(outcome);
             });
}

void Node::tell_waiters(const std::string& instance, const Result<cluster::InstanceFact>& outcome) {
  const auto found = waiting_for_instance_.find(instance);
  if (found == waiting_for_instance_.end()) return;
  const std::vector<InstanceCallback> callbacks = std::move(found->second);
  waiting_for_instance_.erase(found);
  for (const InstanceCallback& callback : callbacks) callback(outcome);
}

Result<cluster::PlaceRequest> Node::fitting_request(const ModelCard& card, const PlaceOptions& options,
                                                    std::vector<planner::Placement>* placements) const {
  if (options.context_tokens && *options.context_tokens > card.context_tokens)
    return fail(ErrorCode::invalid_argument,
                fmt::format("a context of {} tokens is more than the {} that model '{}' was made for",
                            *options.context_tokens, card.context_tokens, card.stored.name));
  cluster::PlaceRequest request{.model = card.stored.name,
                                .demand = model_demand(card, options_.kv_type),
                                .options = {},
                                .layer_count = card.layer_count,
                                .digest = card.stored.digest,
                                .kv_page_tokens = options_.kv_page_tokens,
                                .weights = card.weights};
  Error last;
  for (const planner::PlanOptions& attempt : plan_attempts(card, options)) {
    request.options = attempt;
    Result<std::vector<planner::Placement>> found = cluster_->preview(request);
    if (found) {
      if (placements != nullptr) *placements = *std::move(found);
      return request;
    }
    last = std::move(found).error();
    if (last.code != ErrorCode::out_of_memory) break;
  }
  return std::unexpected(last);
}

void Node::gather_holders(const ModelCard& card, std::function<void()> then) {
  machine_survey_->when_done(
      [this, name = card.stored.name, digest = card.stored.digest, then = std::move(then)]() mutable {
        if (!name.contains('/')) return then();
        search_->seek(name, digest, std::move(then));
      });
}

// Another node wants to serve a model that it knows by this path.
void Node::seek_for(const cluster::NodeId& asker, const SeekMessage& message) {
  shelf_->find(message.name, [this, asker, message](const Result<std::shared_ptr<const ModelCard>>& card) {
    if (!cluster_) return;
    const bool found = card && (*card)->stored.digest == message.digest;
    if (found) announce((*card)->stored);
    send(asker, kSoughtTopic, SoughtMessage{.id = message.id, .found = found}.encode());
  });
}

void Node::place_card(std::shared_ptr<const ModelCard> card, const PlaceOptions& options,
                      InstanceCallback done) {
  gather_holders(*card, [this, card, options, done = std::move(done)]() mutable {
    Result<cluster::PlaceRequest> request = fitting_request(*card, options, nullptr);
    if (!request) return done(std::unexpected(request.error()));
    cluster_->place(*request, std::move(done));
  });
}

// The best placement whose nodes share layers, where it is faster than the best without: for people to know
// of.
void Node::add_shared_alternative(cluster::PlaceRequest request,
                                  std::vector<planner::Placement>& placements) const {
  request.options.strategy = planner::Strategy::automatic;
  Result<std::vector<planner::Placement>> found = cluster_->preview(request);
  if (!found || placements.empty()) return;
  const auto is_shared = [](const planner::Placement& placement) {
    return std::ranges::any_of(placement.stages, [](const auto& stage) { return stage.ranks.size() > 1; });
  };
  const auto shared = std::ranges::find_if(*found, is_shared);
  const double gain =
      shared == found->end() ? 0 : shared->tokens_per_second / placements[0].tokens_per_second;
  if (gain < kWorthMentioning) return;
  shared->reasons.insert(
      shared->reasons.begin(),
      fmt::format(
          "{:.2f} times the first one's speed, for those who ask for it (--strategy tensor or hybrid): "
          "its sums are rounded in another order, so tokens can differ from a single node's",
          gain));
  placements.push_back(std::move(*shared));
}

void Node::preview_card(std::shared_ptr<const ModelCard> card, const PlaceOptions& options,
                        JsonCallback done) {
  gather_holders(*card, [this, card, options, done = std::move(done)] {
    std::vector<planner::Placement> placements;
    const Result<cluster::PlaceRequest> request = fitting_request(*card, options, &placements);
    if (!request) return done(std::unexpected(request.error()));
    if (options.strategy == planner::Strategy::automatic) add_shared_alternative(*request, placements);
    JsonArray list;
    for (const planner::Placement& placement : placements)
      list.push_back(placement_json(placement, request->options, names()));
    done(Json(JsonObject{{"model", request->model}, {"placements", std::move(list)}}));
  });
}

void Node::place(const PlaceOptions& options, JsonCallback done) {
  const std::optional<cluster::NodeId> holder = cluster_ ? holder_elsewhere(options.model) : std::nullopt;
  if (holder) return relay_->place(*holder, options, std::move(done));
  place_here(options, std::move(done));
}

void Node::place_here(const PlaceOptions& options, JsonCallback done) {
  find_card(options.model,
            [this, options, done = std::move(done)](Result<std::shared_ptr<const ModelCard>> card) {
              if (!card) return done(std::unexpected(card.error()));
              if (options.preview) return preview_card(*card, options, std::move(done));
              place_for_all(*card, options, [this, done](const Result<cluster::InstanceFact>& instance) {
                if (!instance) return done(std::unexpected(instance.error()));
                done(instance_report(*instance));
              });
            });
}

void Node::stop_instance(const std::string& instance_or_model, JsonCallback done) {
  const std::string name = without_latest(instance_or_model);
  const cluster::InstanceFact* instance = cluster_ ? cluster_->find_instance(name) : nullptr;
  if (instance == nullptr) {
    std::vector<std::string> known;
    if (cluster_)
      for (const cluster::InstanceFact& other : cluster_->instances())
        if (cluster::is_live(other.state)) known.push_back(other.model);
    return done(fail(ErrorCode::not_found,
                     fmt::format("no instance or served model is called '{}'", instance_or_model),
                     hub::nearest_names_hint(instance_or_model, known)));
  }
  const std::string id = instance->id;
  cluster_->stop_instance(id, [id, done = std::move(done)](const Result<>& stopped) {
    if (!stopped) return done(std::unexpected(stopped.error()));
    done(Json(JsonObject{{"id", id}, {"state", "stopped"}}));
  });
}

std::vector<ModelEntry> Node::models() const {
  std::vector<ModelEntry> entries;
  if (!cluster_) return entries;
  for (const cluster::NodeFact& node : cluster_->nodes())
    for (const cluster::HeldModel& held : node.models) {
      if (std::ranges::find(entries, held.name, &ModelEntry::name) != entries.end()) continue;
      const cluster::InstanceFact* instance = cluster_->find_instance(held.name);
      const auto created = created_.find(held.digest);
      entries.push_back({.name = held.name,
                         .architecture = held.architecture,
                         .bytes = held.bytes,
                         .created = created == created_.end() ? 0 : created->second,
                         .served = instance != nullptr && instance->state == cluster::InstanceState::ready});
    }
  std::ranges::sort(entries, {}, &ModelEntry::name);
  return entries;
}

NodeNames Node::names() const {
  NodeNames result;
  for (const cluster::NodeFact& node : cluster_->nodes()) result.emplace(node.id, node.name);
  return result;
}

std::string Node::node_name(const cluster::NodeId& node) const {
  return cluster_ ? cluster_->node_name(node) : node;
}

Json Node::instance_report(const cluster::InstanceFact& instance) const {
  const auto figures = figures_.find(instance.id);
  return instance_json(instance, names(), figures == figures_.end() ? nullptr : &figures->second);
}

Json Node::cluster() const {
  JsonArray nodes, links, instances;
  if (cluster_) {
    const std::vector<cluster::NodeFact> facts = cluster_->nodes();
    for (const cluster::NodeFact& node : facts) nodes.push_back(node_json(node));
    links = links_json(facts, unix_seconds());
    for (const cluster::InstanceFact& instance : cluster_->instances())
      instances.push_back(instance_report(instance));
  }
  return JsonObject{{"self", bus_.self()},
                    {"cluster", options_.cluster_name},
                    {"nodes", std::move(nodes)},
                    {"links", std::move(links)},
                    {"instances", std::move(instances)}};
}

std::string Node::metrics() const {
  std::string out;
  write_gateway_metrics(out, gateway_->metrics(), gateway_->running());
  write_owner_metrics(out, owners_);
  return out;
}

}  // namespace shoal::serving
