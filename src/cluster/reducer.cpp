#include "cluster/reducer.h"

#include <algorithm>
#include <fmt/format.h>

#include "base/limits.h"
#include "base/log.h"
#include "cluster/planner_input.h"

namespace shoal::cluster {

Reducer::Reducer(NodeFact self) : view_(std::move(self)), owner_(view_), host_(view_), waiters_(view_) {
  view_.self().workers.clear();
}

Actions Reducer::apply(const Event& event, TimePoint now) {
  Actions out;
  if (leaving_) {
    refuse_while_leaving(event, out);
    return out;
  }
  std::visit([&](const auto& one) { on(one, now, out); }, event);
  if (!leaving_) reconcile(now, out);
  announce_changes(out);
  publish_self(now, out);
  return out;
}

void Reducer::refuse_while_leaving(const Event& event, Actions& out) {
  Error why{ErrorCode::cancelled, fmt::format("node {} is shutting down", view_.self().name), ""};
  if (const auto* place = std::get_if<PlaceAsked>(&event))
    out.push_back(PlaceDone{place->call, std::unexpected(why)});
  if (const auto* stop = std::get_if<StopAsked>(&event))
    out.push_back(StopDone{stop->call, std::unexpected(why)});
}

void Reducer::on(const Started&, TimePoint, Actions&) {
  started_ = true;
  urgency_ = Urgency::now;
}

void Reducer::on(const Tick&, TimePoint, Actions&) {}

void Reducer::on(const NodeJoined& event, TimePoint, Actions&) {
  if (!is_id(event.node)) {
    log_warning("cluster", "ignored a node whose id is not 16 hexadecimal digits");
  } else if (!view_.is_member(event.node) && view_.members().size() >= limits::kMaxNodes) {
    log_warning("cluster", "ignored node {}: the cluster has {} nodes already", event.node,
                limits::kMaxNodes);
  } else {
    view_.join(event.node);
  }
}

void Reducer::on(const NodeLeft& event, TimePoint, Actions& out) {
  if (event.node == view_.self_id() || !view_.is_member(event.node)) return;
  view_.leave(event.node);
  out.push_back(NodeGone{event.node});
}

void Reducer::on(const FactHeard& event, TimePoint, Actions&) {
  view_.hear_fact(event.writer, event.name, event.value);
}

void Reducer::on(const MessageHeard& event, TimePoint now, Actions& out) {
  if (auto heard = hear_message(event, now, out); !heard) {
    log_warning("cluster", "dropped {} of {}: {}", event.topic, event.sender, heard.error().message);
  }
}

Result<> Reducer::hear_message(const MessageHeard& event, TimePoint now, Actions& out) {
  SHOAL_TRY(JsonObject object, parse_json_object(event.payload, event.topic));
  if (event.topic == kPlaceTopic) {
    SHOAL_TRY(InstanceFact proposal, instance_fact_from_json(object));
    std::string id = proposal.id;
    if (auto owned = owner_.own(std::move(proposal), now, out); !owned) {
      JsonObject refusal{{"instance", id}, {"error", to_json(owned.error())}};
      out.push_back(SendMessage{event.sender, std::string(kRefusedTopic), to_text(refusal)});
    }
    return {};
  }
  SHOAL_TRY(std::string instance, require_string(object, "instance"));
  if (!is_id(instance)) return fail(ErrorCode::malformed, "'instance' is not 16 hexadecimal digits");
  if (event.topic == kStopTopic) {
    owner_.stop(instance, now, out);
  } else if (event.topic == kRefusedTopic) {
    SHOAL_TRY(const JsonObject* error, get_object(object, "error"));
    if (!error) return fail(ErrorCode::malformed, "'error' is missing");
    SHOAL_TRY(Error why, error_from_json(*error));
    waiters_.refused(event.sender, instance, why, out);
  }
  return {};
}

void Reducer::on(const WorkerReported& event, TimePoint, Actions& out) {
  bool urgent = host_.hear(event, out);
  urgency_ = std::max(urgency_, urgent ? Urgency::now : Urgency::soon);
}

void Reducer::on(const SelfChanged& event, TimePoint, Actions&) {
  NodeFact& self = view_.self();
  std::vector<WorkerFact> workers = std::move(self.workers);
  uint64_t free_before = self.free_memory_bytes;
  self = event.fact;
  self.id = view_.self_id();
  self.workers = std::move(workers);
  // Other nodes plan with this figure; between a worker's start and its memory they would plan twice with the
  // same bytes.
  uint64_t moved =
      std::max(free_before, self.free_memory_bytes) - std::min(free_before, self.free_memory_bytes);
  bool large = moved > self.total_memory_bytes / 64;
  urgency_ = std::max(urgency_, large ? Urgency::now : Urgency::soon);
}

PlannerInput Reducer::planner_input(const PlaceRequest& request) const {
  PlannerInput input{.devices = view_.devices(request), .links = {}};
  input.links = measured_links(input.devices, view_.members());
  return input;
}

Result<std::vector<planner::Placement>> Reducer::preview(const PlaceRequest& request) const {
  const PlannerInput input = planner_input(request);
  return planner::plan(input.devices, input.links, request.demand, request.options);
}

Result<InstanceFact> Reducer::propose(const PlaceAsked& asked) const {
  const PlaceRequest& request = asked.request;
  if (request.kv_page_tokens == 0 || request.layer_count != request.demand.layers.size()) {
    return fail(ErrorCode::invalid_argument,
                fmt::format("the request to place {} contradicts itself", request.model));
  }
  SHOAL_TRY(std::vector<planner::Placement> placements, preview(request));
  const planner::Placement& best = placements.front();
  InstanceFact fact;
  fact.id = asked.instance;
  fact.model = request.model;
  fact.digest = request.digest;
  fact.epoch = 1;
  fact.owner = best.stages.front().node;
  for (const planner::StagePlan& stage : best.stages) {
    for (const planner::RankPlan& rank : stage.ranks) {
      fact.ranks.push_back(
          {rank.node, stage.first_layer, stage.end_layer, rank.memory_bytes, rank.share_per_mille});
    }
  }
  fact.layer_count = request.layer_count;
  fact.context_tokens = request.options.context_tokens;
  fact.kv_page_tokens = request.kv_page_tokens;
  uint64_t tokens = uint64_t{request.options.context_tokens} * std::max(1u, request.options.concurrency);
  uint64_t pages = (tokens + request.kv_page_tokens - 1) / request.kv_page_tokens;
  if (pages > UINT32_MAX)
    return fail(ErrorCode::limit_exceeded, fmt::format("{} KV pages are too many", pages));
  fact.kv_page_count = static_cast<uint32_t>(pages);
  fact.state_slots = request.options.state_slots;
  fact.wire = request.options.wire;
  fact.secret = asked.secret;
  fact.predicted_tokens_per_second = best.tokens_per_second;
  // Our own fact must pass the same gate at every other node.
  return instance_fact_from_json(to_json(fact));
}

void Reducer::on(const PlaceAsked& event, TimePoint now, Actions& out) {
  Result<InstanceFact> proposal = propose(event);
  if (proposal && proposal->owner == view_.self_id()) {
    if (auto owned = owner_.own(*proposal, now, out); !owned) proposal = std::unexpected(owned.error());
  }
  if (!proposal) {
    out.push_back(PlaceDone{event.call, std::unexpected(proposal.error())});
  } else {
    waiters_.wait_placed(event.call, *std::move(proposal), now);
  }
}

void Reducer::on(const StopAsked& event, TimePoint now, Actions& out) {
  const InstanceFact* fact = view_.instance(event.instance);
  if (!fact) {
    Error unknown{ErrorCode::not_found, fmt::format("there is no instance {}", event.instance), ""};
    out.push_back(StopDone{event.call, std::unexpected(unknown)});
    return;
  }
  if (fact->owner == view_.self_id()) owner_.stop(event.instance, now, out);
  waiters_.wait_stopped(event.call, event.instance, now);
}

void Reducer::on(const Leaving&, TimePoint now, Actions& out) {
  Error why{ErrorCode::cancelled, fmt::format("node {} is shutting down", view_.self().name), ""};
  owner_.end_all(why, now, out);
  host_.stop_all(out);
  waiters_.end_all(why, out);
  leaving_ = true;
  urgency_ = Urgency::now;
}

void Reducer::reconcile(TimePoint now, Actions& out) {
  // Owner and host may be the same node and react to each other: until both rest, which takes two rounds at
  // most for each of an instance's states.
  for (int round = 0; round < 8; ++round) {
    bool owned = owner_.reconcile(now, out);
    bool hosted = host_.reconcile(out);
    if (hosted) urgency_ = Urgency::now;
    if (!owned && !hosted) break;
  }
  waiters_.reconcile(now, out);
}

void Reducer::announce_changes(Actions& out) {
  auto instances = view_.instances();
  for (auto it = known_.begin(); it != known_.end();) {
    if (instances.contains(it->first)) {
      ++it;
      continue;
    }
    announce_vanished(it->first, it->second, out);
    it = known_.erase(it);
  }
  for (const auto& [id, fact] : instances) {
    Known now_known{fact->owner, fact->epoch, fact->state};
    auto [known, is_new] = known_.try_emplace(id, now_known);
    if (!is_new && known->second == now_known) continue;
    known->second = now_known;
    out.push_back(InstanceChanged{id, *fact, fact->error});
  }
}

void Reducer::announce_vanished(const std::string& id, const Known& known, Actions& out) {
  Error why{ErrorCode::unavailable, fmt::format("instance {} was withdrawn", id), ""};
  if (!view_.is_member(known.owner)) {
    why.message = fmt::format("node {} left, which owned instance {}", view_.name_of(known.owner), id);
    why.hint = "place the model again on the nodes that are left";
  }
  out.push_back(InstanceChanged{id, std::nullopt, std::move(why)});
}

void Reducer::publish_self(TimePoint now, Actions& out) {
  if (!started_ || urgency_ == Urgency::none) return;
  if (urgency_ == Urgency::soon && now - published_at_ < kReportInterval) return;
  urgency_ = Urgency::none;
  published_at_ = now;
  out.push_back(PublishFact{"node", to_text(to_json(view_.self()))});
}

}  // namespace shoal::cluster
