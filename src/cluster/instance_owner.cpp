#include "cluster/instance_owner.h"

#include <algorithm>
#include <fmt/format.h>
#include <tuple>

namespace shoal::cluster {
namespace {

constexpr size_t kMaxOwned = 64;
constexpr size_t kMaxRememberedEnds = 1024;

// Causes that placing again would meet again keep their code; everything else is `unavailable`.
ErrorCode code_for_clients(ErrorCode code, bool up) {
  switch (code) {
    case ErrorCode::out_of_memory:
    case ErrorCode::malformed:
    case ErrorCode::unsupported:
    case ErrorCode::not_found:
    case ErrorCode::limit_exceeded:
      return up ? ErrorCode::unavailable : code;
    default:
      return ErrorCode::unavailable;
  }
}

}  // namespace

void InstanceOwner::publish(const InstanceFact& fact, Actions& out) const {
  out.push_back(PublishFact{"instance/" + fact.id, to_text(to_json(fact))});
}

void InstanceOwner::remember(const std::string& instance, const Error& why) {
  ended_.emplace_back(instance, why);
  if (ended_.size() > kMaxRememberedEnds) ended_.pop_front();
}

std::string InstanceOwner::rank_text(const InstanceFact& fact, uint32_t rank) const {
  return fmt::format("rank {} of {} on node {}", rank, fact.model, view_.name_of(fact.ranks[rank].node));
}

Result<> InstanceOwner::own(InstanceFact fact, TimePoint now, Actions& out) {
  if (owned_.contains(fact.id)) return {};
  auto ended =
      std::find_if(ended_.begin(), ended_.end(), [&](const auto& one) { return one.first == fact.id; });
  if (ended != ended_.end()) return std::unexpected(ended->second);
  // Steps go in at stage 0, so its node is the one that can drive them.
  bool ours = fact.owner == view_.self_id() && fact.ranks.front().node == fact.owner;
  if (!ours || fact.state != InstanceState::loading || fact.epoch == 0) {
    return fail(ErrorCode::invalid_argument, fmt::format("instance {} is not for this node to own", fact.id));
  }
  Error refusal;
  if (owned_.size() >= kMaxOwned) {
    refusal = {ErrorCode::limit_exceeded, fmt::format("node {} owns 64 instances already", view_.self().name),
               ""};
  }
  for (uint32_t rank = 0; rank < fact.ranks.size(); ++rank) {
    if (!view_.node(fact.ranks[rank].node)) {
      refusal = {ErrorCode::unavailable, rank_text(fact, rank) + " cannot start: the node is not here", ""};
    }
  }
  if (!refusal.message.empty()) {
    remember(fact.id, refusal);
    return std::unexpected(refusal);
  }
  owned_[fact.id] = Owned{false, now, std::vector<Rank>(fact.ranks.size())};
  publish(fact, out);
  std::string id = fact.id;
  view_.own_instances().insert_or_assign(id, std::move(fact));
  return {};
}

void InstanceOwner::stop(const std::string& instance, TimePoint now, Actions& out) {
  Error why{ErrorCode::cancelled, "the instance was stopped", ""};
  auto found = view_.own_instances().find(instance);
  if (found == view_.own_instances().end()) {
    remember(instance, why);
  } else if (is_live(found->second.state)) {
    end(found->second, InstanceState::stopped, why, now, out);
  }
}

void InstanceOwner::end(InstanceFact& fact, InstanceState state, const Error& why, TimePoint now,
                        Actions& out) {
  Owned& owned = owned_.at(fact.id);
  fact.state = state;
  fact.error = why;
  publish(fact, out);
  if (owned.up) out.push_back(InstanceDown{fact.id, fact.epoch, why});
  owned.up = false;
  owned.moved_at = now;
  remember(fact.id, why);
}

std::optional<Error> InstanceOwner::check_rank(const InstanceFact& fact, uint32_t rank, Owned& owned,
                                               TimePoint now) {
  const NodeId& node = fact.ranks[rank].node;
  Rank& known = owned.ranks[rank];
  if (!view_.is_member(node)) {
    return Error{ErrorCode::unavailable,
                 fmt::format("node {} left with rank {} of {}", view_.name_of(node), rank, fact.model),
                 "place the model again on the nodes that are left"};
  }
  const WorkerFact* worker = view_.worker(node, fact.id, fact.epoch, rank);
  if (!worker) {
    if (!known.seen) return std::nullopt;
    return Error{ErrorCode::unavailable, rank_text(fact, rank) + " was stopped by its node", ""};
  }
  if (worker->state == WorkerState::failed) {
    Error cause = worker->error.value_or(Error{});
    return Error{code_for_clients(cause.code, owned.up),
                 fmt::format("{} failed: {}", rank_text(fact, rank), cause.message), cause.hint};
  }
  if (!known.seen || worker->state != known.state || worker->progress != known.progress) owned.moved_at = now;
  known = {true, worker->state, worker->progress};
  return std::nullopt;
}

// Why the instance cannot go on.
std::optional<Error> InstanceOwner::check(const InstanceFact& fact, Owned& owned, TimePoint now) {
  const InstanceFact* winner = view_.instance(fact.id);
  if (winner != &fact) {
    return Error{ErrorCode::conflict,
                 fmt::format("node {} owns a newer epoch of the instance", view_.name_of(winner->owner)), ""};
  }
  for (uint32_t rank = 0; rank < fact.ranks.size(); ++rank) {
    if (auto error = check_rank(fact, rank, owned, now)) return error;
  }
  if (fact.state != InstanceState::loading || now - owned.moved_at < kNoProgressLimit) return std::nullopt;
  auto behind = std::min_element(owned.ranks.begin(), owned.ranks.end(), [](const Rank& a, const Rank& b) {
    return std::tuple(a.seen, a.state, a.progress) < std::tuple(b.seen, b.state, b.progress);
  });
  uint32_t rank = static_cast<uint32_t>(behind - owned.ranks.begin());
  return Error{ErrorCode::timeout,
               fmt::format("{} made no progress for 60 s ({})", rank_text(fact, rank),
                           behind->seen ? to_string(behind->state) : "not started"),
               ""};
}

bool InstanceOwner::reconcile(TimePoint now, Actions& out) {
  bool changed = false;
  auto& facts = view_.own_instances();
  for (auto it = facts.begin(); it != facts.end();) {
    InstanceFact& fact = it->second;
    Owned& owned = owned_.at(fact.id);
    if (!is_live(fact.state)) {
      if (now - owned.moved_at < kEndedLinger) {
        ++it;
        continue;
      }
      out.push_back(WithdrawFact{"instance/" + fact.id});
      owned_.erase(fact.id);
      it = facts.erase(it);
      changed = true;
      continue;
    }
    auto is_ready = [](const Rank& rank) { return rank.seen && rank.state == WorkerState::ready; };
    if (auto error = check(fact, owned, now)) {
      end(fact, InstanceState::failed, *error, now, out);
      changed = true;
    } else if (fact.state == InstanceState::loading &&
               std::all_of(owned.ranks.begin(), owned.ranks.end(), is_ready)) {
      fact.state = InstanceState::ready;
      owned.up = changed = true;
      publish(fact, out);
      out.push_back(InstanceUp{fact});
    }
    ++it;
  }
  return changed;
}

void InstanceOwner::end_all(const Error& why, TimePoint now, Actions& out) {
  for (auto& [id, fact] : view_.own_instances()) {
    if (is_live(fact.state)) end(fact, InstanceState::stopped, why, now, out);
  }
}

}  // namespace shoal::cluster
