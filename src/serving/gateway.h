// The gateway's side of a request: from a client's GenerateRequest to text events, whichever node computes
// the tokens.
//
//   generate ─▶ card of the model ─▶ prompt to tokens (task pool) ─▶ a ready instance (placed if there is
//   none)
//            ─▶ journal entry, submit to the owner ─▶ accept ─▶ tokens ─▶ text ─▶ end
//
// Every generation ends with exactly one on_finished or on_error, or silently when its client cancelled it.
// What is lost on the way (owner, worker, node, epoch) ends it with an `unavailable` Error that names the
// loss. Event-loop thread only.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <unordered_map>

#include "base/clock.h"
#include "cluster/facts.h"
#include "serving/answer_text.h"
#include "serving/journal.h"
#include "serving/messages.h"
#include "serving/metrics.h"
#include "serving/model_card.h"
#include "serving/owner.h"
#include "serving/service.h"
#include "serving/task_pool.h"

namespace shoal::serving {

using CardCallback = std::function<void(Result<std::shared_ptr<const ModelCard>>)>;
using InstanceCallback = std::function<void(Result<cluster::InstanceFact>)>;

// What a gateway asks of its node.
class Directory {
 public:
  virtual ~Directory() = default;
  // The card of the model of that name, or of the model that the instance of that id serves.
  virtual void find_card(const std::string& model_or_instance, CardCallback done) = 0;
  // An instance that is ready: the one named, or one of the card's model that is there, or soon, or placed
  // for this.
  virtual void ready_instance(const std::string& model_or_instance, std::shared_ptr<const ModelCard> card,
                              InstanceCallback done) = 0;
  virtual std::string node_name(const cluster::NodeId& node) const = 0;  // for messages
};

class Gateway {
 public:
  static constexpr Duration kAcceptTimeout = seconds(2);

  Gateway(TaskPool& tasks, Directory& directory, const Clock& clock, Send send);

  GenerationId generate(GenerateRequest request, std::shared_ptr<GenerationListener> listener);
  void cancel(GenerationId generation);

  void on_accept(const cluster::NodeId& sender, const AcceptMessage& message);
  void on_tokens(const cluster::NodeId& sender, const TokensMessage& message);
  void on_fail(const cluster::NodeId& sender, const FailMessage& message);

  // `fact` is nullptr when the instance vanished; `why` may be nullptr.
  void instance_changed(const std::string& instance, const cluster::InstanceFact* fact, const Error* why);
  void node_left(const cluster::NodeId& node);
  void fail_all(const Error& why);
  void tick(TimePoint now);

  const GatewayMetrics& metrics() const { return metrics_; }
  size_t running() const { return generations_.size(); }

 private:
  struct Generation;
  using Handle = std::shared_ptr<Generation>;

  void prepare(const Handle& generation, std::shared_ptr<const ModelCard> card);
  void find_instance(const Handle& generation, std::vector<int32_t> prompt);
  void submit(const Handle& generation, const cluster::InstanceFact& instance, std::vector<int32_t> prompt);
  void commit(const Handle& generation, const TokensMessage& message);
  void pass_on(const Handle& generation, AnswerText::Output output);
  void finish(const Handle& generation, FinishReason reason, std::optional<std::string> stop);
  void fail(const Handle& generation, const Error& error);
  void tell_owner_to_cancel(const Generation& generation);
  // The generation that a message of `sender` is about; null for strangers, old epochs and what has ended.
  Handle find(const cluster::NodeId& sender, RequestId request, uint32_t epoch) const;
  template <class Lost>
  void fail_where(Lost lost, const Error& error);

  TaskPool& tasks_;
  Directory& directory_;
  const Clock& clock_;
  Send send_;
  std::unordered_map<GenerationId, Handle> generations_;
  GenerationId next_id_;
  GatewayMetrics metrics_;
};

}  // namespace shoal::serving
