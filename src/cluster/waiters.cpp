#include "cluster/waiters.h"

#include <fmt/format.h>

namespace shoal::cluster {
namespace {

SendMessage stop_message(const NodeId& owner, const std::string& instance) {
  return {owner, std::string(kStopTopic), to_text(JsonObject{{"instance", instance}})};
}

}  // namespace

void Waiters::wait_placed(CallId call, InstanceFact proposal, TimePoint now) {
  placing_.push_back({call, std::move(proposal), now, now, false});
}

void Waiters::wait_stopped(CallId call, const std::string& instance, TimePoint now) {
  stopping_.push_back({call, instance, now, now});
}

void Waiters::refused(const NodeId& owner, const std::string& instance, const Error& why, Actions& out) {
  placing_.remove_if([&](const Placing& placing) {
    if (placing.proposal.id != instance || placing.proposal.owner != owner || placing.seen) return false;
    out.push_back(PlaceDone{placing.call, std::unexpected(why)});
    return true;
  });
}

std::optional<Result<InstanceFact>> Waiters::outcome(Placing& placing, TimePoint now) const {
  const InstanceFact& proposal = placing.proposal;
  std::string owner = view_.name_of(proposal.owner);
  if (const InstanceFact* fact = view_.instance_of(proposal.owner, proposal.id)) {
    placing.seen = true;
    if (fact->state == InstanceState::ready) return Result<InstanceFact>(*fact);
    if (!is_live(fact->state)) {
      Error unknown{ErrorCode::unavailable, "the instance ended", ""};
      return Result<InstanceFact>(std::unexpected(fact->error.value_or(unknown)));
    }
    if (now - placing.asked_at < kPlaceLimit) return std::nullopt;
    return fail(ErrorCode::timeout, fmt::format("{} was not ready within 30 minutes", proposal.model));
  }
  if (!view_.is_member(proposal.owner)) {
    return fail(ErrorCode::unavailable,
                fmt::format("node {} left, which was to own {}", owner, proposal.model),
                "place the model again on the nodes that are left");
  }
  if (placing.seen)
    return fail(ErrorCode::unavailable, fmt::format("node {} has dropped {}", owner, proposal.model));
  if (now - placing.asked_at < kOwnerAnswerLimit) return std::nullopt;
  return fail(ErrorCode::timeout,
              fmt::format("node {} did not answer for 10 s when asked to own {}", owner, proposal.model));
}

const NodeFact* Waiters::runs_worker_of(const std::string& instance) const {
  for (const auto& [node, member] : view_.members()) {
    if (!member.fact) continue;
    for (const WorkerFact& worker : member.fact->workers) {
      if (worker.instance == instance && worker.state != WorkerState::failed) return &*member.fact;
    }
  }
  return nullptr;
}

std::optional<Result<>> Waiters::outcome(const Stopping& stopping, TimePoint now) const {
  const InstanceFact* fact = view_.instance(stopping.instance);
  bool live = fact && is_live(fact->state);
  const NodeFact* host = runs_worker_of(stopping.instance);
  if (!live && !host) return Result<>();
  if (now - stopping.asked_at < kStopLimit) return std::nullopt;
  const std::string& name = live ? view_.name_of(fact->owner) : host->name;
  return fail(ErrorCode::timeout,
              fmt::format("node {} did not stop instance {} within 15 s", name, stopping.instance));
}

void Waiters::reconcile(TimePoint now, Actions& out) {
  placing_.remove_if([&](Placing& placing) {
    if (auto result = outcome(placing, now)) {
      bool may_be_loading = !*result && result->error().code == ErrorCode::timeout;
      if (may_be_loading) out.push_back(stop_message(placing.proposal.owner, placing.proposal.id));
      out.push_back(PlaceDone{placing.call, *std::move(result)});
      return true;
    }
    if (!placing.seen && now >= placing.repeat_at) {
      placing.repeat_at = now + kRepeatInterval;
      out.push_back(
          SendMessage{placing.proposal.owner, std::string(kPlaceTopic), to_text(to_json(placing.proposal))});
    }
    return false;
  });
  stopping_.remove_if([&](Stopping& stopping) {
    if (auto result = outcome(stopping, now)) {
      out.push_back(StopDone{stopping.call, *std::move(result)});
      return true;
    }
    const InstanceFact* fact = view_.instance(stopping.instance);
    if (fact && is_live(fact->state) && now >= stopping.repeat_at) {
      stopping.repeat_at = now + kRepeatInterval;
      out.push_back(stop_message(fact->owner, stopping.instance));
    }
    return false;
  });
}

void Waiters::end_all(const Error& why, Actions& out) {
  for (const Placing& placing : placing_) out.push_back(PlaceDone{placing.call, std::unexpected(why)});
  for (const Stopping& stopping : stopping_) out.push_back(StopDone{stopping.call, std::unexpected(why)});
  placing_.clear();
  stopping_.clear();
}

}  // namespace shoal::cluster
