#include "serving/node.h"

#include <algorithm>
#include <boost/asio/post.hpp>
#include <fmt/format.h>

#include "base/limits.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/system.h"
#include "cluster/local_addresses.h"

namespace shoal::serving {
namespace {

constexpr Duration kTickInterval = milliseconds(50);
constexpr uint64_t kTicksPerFigures = 40;  // 2 s
constexpr uint64_t kTicksPerModels = 200;  // 10 s
constexpr size_t kTaskThreads = 2;

std::vector<std::filesystem::path> roots_of(const NodeOptions& options) {
  return options.model_roots.empty() ? hub::ModelStore::default_roots(options.data_directory)
                                     : options.model_roots;
}

}  // namespace

Node::Node(boost::asio::io_context& io, NodeOptions options, cluster::Bus& bus)
    : io_(io), options_(std::move(options)), bus_(bus) {
  if (options_.name.empty()) options_.name = host_name();
  if (options_.executable.empty()) options_.executable = executable_path();
  if (!options_.worker_factory) options_.worker_factory = worker::WorkerClient::start;
  memory_budget_bytes_ =
      options_.memory_bytes != 0 ? options_.memory_bytes : available_memory_bytes() / 5 * 4;
  store_ = std::make_shared<const hub::ModelStore>(roots_of(options_));
  workers_ = std::make_unique<Workers>(io_, options_.worker_factory, options_.executable.string(),
                                       static_cast<WorkerEvents&>(*this));
  tasks_ = std::make_unique<TaskPool>(io_, kTaskThreads);
  shelf_ = std::make_unique<CardShelf>(*tasks_, store_);
  const auto sender = [this](const cluster::NodeId& receiver, std::string_view topic, const Bytes& payload) {
    send(receiver, topic, payload);
  };
  gateway_ = std::make_unique<Gateway>(*tasks_, static_cast<Directory&>(*this), clock_, sender);
  relay_ = std::make_unique<Relay>(
      Relay::Local{.generate =
                       [this](GenerateRequest request, std::shared_ptr<GenerationListener> listener) {
                         return gateway_->generate(std::move(request), std::move(listener));
                       },
                   .cancel = [this](GenerationId generation) { gateway_->cancel(generation); },
                   .place = [this](const PlaceOptions& wanted,
                                   JsonCallback done) { place_here(wanted, std::move(done)); }},
      [this](const cluster::NodeId& node) { return node_name(node); }, clock_, sender);
  search_ = std::make_unique<PeerSearch>(bus_.self(), [this] { return cluster_->nodes(); }, clock_, sender);
  timer_ = std::make_unique<boost::asio::steady_timer>(io_);
}

Node::~Node() {
  stop();
}

cluster::NodeFact Node::own_fact() const {
  cluster::NodeFact fact;
  fact.id = bus_.self();
  fact.name = options_.name;
  fact.version = SHOAL_VERSION;
  fact.api_url = options_.api_url;
  fact.cpu = cpu_name();
  fact.cores = usable_core_count();
  fact.total_memory_bytes = total_memory_bytes();
  fact.free_memory_bytes = memory_budget_bytes_;
  if (machine_survey_->figures()) show_figures(fact, *machine_survey_->figures());
  fact.probe_port = link_survey_->port();
  fact.addresses = options_.listen_addresses.empty() ? cluster::local_addresses() : options_.listen_addresses;
  return fact;
}

Result<> Node::start() {
  log_info("node", "{}: {} for models", options_.name, format_bytes(memory_budget_bytes_));
  start_measuring();
  cluster_ = std::make_unique<cluster::Cluster>(bus_, clock_, static_cast<cluster::WorldEffects&>(*this),
                                                own_fact());
  listen_to_topics();
  listen_to_relays();
  listen_to_probes();
  SHOAL_TRY_VOID(cluster_->start());
  refresh_models();
  arm_timer();
  return {};
}

void Node::stop() {
  if (!cluster_) return;
  timer_->cancel();
  link_survey_->stop();
  const Error why{ErrorCode::unavailable, fmt::format("node '{}' is stopping", options_.name), ""};
  gateway_->fail_all(why);
  relay_->fail_all(why);
  for (auto& [instance, owner] : owners_) owner->fail_all({why.code, why.message, "try again"});
  cluster_->stop();
  machine_survey_->stop();
  search_->end_all();  // what was about to be placed hears from the cluster that we are leaving
  tasks_->close();
  alive_.reset();  // nothing that is still posted finds us
  owners_.clear();
  workers_->stop_all();
  cluster_.reset();
}

template <class Message>
void Node::on_message(std::string_view topic, std::function<void(const cluster::NodeId&, Message)> handle) {
  auto decode = [topic = std::string(topic), handle = std::move(handle)](const cluster::NodeId& sender,
                                                                         ByteView payload) {
    Result<Message> message = Message::decode(payload);
    if (message) return handle(sender, *std::move(message));
    log_warning("node", "dropped {} of node {}: {}", topic, sender, message.error().text());
  };
  cluster_->on_topic(std::string(topic), decode);
  topics_.insert_or_assign(std::string(topic), std::move(decode));
}

void Node::listen_to_topics() {
  using cluster::NodeId;
  on_message<SubmitMessage>(kSubmitTopic, [this](const NodeId& sender, SubmitMessage message) {
    if (InstanceOwner* owner = find_owner(message.instance, message.epoch))
      return owner->submit(sender, std::move(message));
    const FailMessage refusal{.epoch = message.epoch,
                              .request = message.request,
                              .error = {ErrorCode::unavailable,
                                        fmt::format("node '{}' does not serve instance '{}' in epoch {}",
                                                    options_.name, message.instance, message.epoch),
                                        "try again"}};
    send(sender, kFailTopic, refusal.encode());
  });
  on_message<CancelMessage>(kCancelTopic, [this](const NodeId& sender, const CancelMessage& message) {
    if (InstanceOwner* owner = find_owner(message.instance, message.epoch))
      owner->cancel(sender, message.request);
  });
  on_message<AcceptMessage>(kAcceptTopic, [this](const NodeId& sender, const AcceptMessage& message) {
    gateway_->on_accept(sender, message);
  });
  on_message<TokensMessage>(kTokensTopic, [this](const NodeId& sender, const TokensMessage& message) {
    gateway_->on_tokens(sender, message);
  });
  on_message<FailMessage>(kFailTopic, [this](const NodeId& sender, const FailMessage& message) {
    gateway_->on_fail(sender, message);
  });
  on_message<FiguresMessage>(kFiguresTopic, [this](const NodeId& sender, FiguresMessage message) {
    const cluster::InstanceFact* instance = cluster_->find_instance(message.instance);
    if (instance != nullptr && instance->owner == sender) figures_[instance->id] = std::move(message);
  });
}

void Node::listen_to_relays() {
  using cluster::NodeId;
  on_message<AskMessage>(kAskTopic, [this](const NodeId& sender, AskMessage message) {
    relay_->on_ask(sender, std::move(message));
  });
  on_message<HangUpMessage>(kHangUpTopic, [this](const NodeId& sender, const HangUpMessage& message) {
    relay_->on_hang_up(sender, message);
  });
  on_message<HeardMessage>(kHeardTopic, [this](const NodeId& sender, HeardMessage message) {
    relay_->on_heard(sender, std::move(message));
  });
  on_message<PlaceMessage>(kPlaceTopic, [this](const NodeId& sender, const PlaceMessage& message) {
    relay_->on_place(sender, message);
  });
  on_message<PlacedMessage>(kPlacedTopic, [this](const NodeId& sender, PlacedMessage message) {
    relay_->on_placed(sender, std::move(message));
  });
  on_message<SeekMessage>(
      kSeekTopic, [this](const NodeId& sender, const SeekMessage& message) { seek_for(sender, message); });
  on_message<SoughtMessage>(kSoughtTopic, [this](const NodeId& sender, const SoughtMessage& message) {
    search_->on_sought(sender, message);
  });
}

void Node::listen_to_probes() {
  using cluster::NodeId;
  on_message<ProbeAskMessage>(kProbeAskTopic, [this](const NodeId& sender, const ProbeAskMessage& message) {
    link_survey_->on_ask(sender, message);
  });
  on_message<ProbeOfferMessage>(kProbeOfferTopic,
                                [this](const NodeId& sender, const ProbeOfferMessage& message) {
                                  link_survey_->on_offer(sender, message);
                                });
  on_message<ProbeDoneMessage>(kProbeDoneTopic, [this](const NodeId&, const ProbeDoneMessage& message) {
    link_survey_->on_done(message);
  });
}

// To ourselves through the loop, never within the call: whoever sends need not expect an answer before it is
// done.
void Node::send(const cluster::NodeId& receiver, std::string_view topic, const Bytes& payload) {
  if (!cluster_) return;
  if (receiver != bus_.self()) return cluster_->send(receiver, topic, payload);
  boost::asio::post(io_, [this, alive = std::weak_ptr(alive_), topic = std::string(topic), payload] {
    if (!alive.lock() || !cluster_) return;
    if (const auto handler = topics_.find(topic); handler != topics_.end())
      handler->second(bus_.self(), payload);
  });
}

void Node::arm_timer() {
  timer_->expires_after(kTickInterval);
  timer_->async_wait([this, alive = std::weak_ptr(alive_)](boost::system::error_code error) {
    if (error || !alive.lock()) return;
    tick();
    arm_timer();
  });
}

void Node::tick() {
  cluster_->tick();
  gateway_->tick(clock_.now());
  relay_->tick(clock_.now());
  search_->tick(clock_.now());
  link_survey_->tick(clock_.now());
  ticks_ += 1;
  if (ticks_ % kTicksPerFigures == 0) {
    watch_drift();
    broadcast_figures();
  }
  if (ticks_ % kTicksPerModels == 0) refresh_models();
}

void Node::refresh_models() {
  tasks_->run([store = store_] { return store->list(); },
              [this](const std::vector<hub::StoredModel>& models) { set_models(models); });
}

void Node::set_models(const std::vector<hub::StoredModel>& models) {
  if (!cluster_) return;
  std::vector<cluster::HeldModel> held;
  for (const hub::StoredModel& model : models) {
    held.push_back({.name = model.name,
                    .digest = model.digest,
                    .architecture = model.architecture,
                    .bytes = model.bytes});
    created_[model.digest] = model.created;
  }
  const auto same = [](const cluster::HeldModel& a, const cluster::HeldModel& b) {
    return a.name == b.name && a.digest == b.digest;
  };
  if (std::ranges::equal(held, cluster_->self().models, same)) return;
  cluster_->update_self([&](cluster::NodeFact& fact) { fact.models = std::move(held); });
}

// A model that was just asked for may not have been listed yet.
void Node::announce(const hub::StoredModel& model) {
  created_[model.digest] = model.created;
  for (const cluster::HeldModel& held : cluster_->self().models)
    if (held.name == model.name && held.digest == model.digest) return;
  cluster_->update_self([&](cluster::NodeFact& fact) {
    std::erase_if(fact.models, [&](const cluster::HeldModel& held) { return held.name == model.name; });
    fact.models.push_back({.name = model.name,
                           .digest = model.digest,
                           .architecture = model.architecture,
                           .bytes = model.bytes});
  });
}

void Node::update_free_memory() {
  if (!cluster_) return;
  const uint64_t held = workers_->held_bytes();
  const uint64_t free = memory_budget_bytes_ - std::min(held, memory_budget_bytes_);
  if (cluster_->self().free_memory_bytes != free)
    cluster_->update_self([free](cluster::NodeFact& fact) { fact.free_memory_bytes = free; });
}

void Node::broadcast_figures() {
  for (const auto& [instance, owner] : owners_) {
    const scheduler::Metrics metrics = owner->metrics();
    const FiguresMessage message{.instance = instance,
                                 .epoch = owner->epoch(),
                                 .tokens_per_second = owner->figures().tokens_per_second,
                                 .waiting = static_cast<uint32_t>(metrics.waiting),
                                 .active = static_cast<uint32_t>(metrics.active),
                                 .stage_milliseconds = owner->figures().stage_milliseconds,
                                 .advice = advice_of(instance)};
    const Bytes bytes = message.encode();
    for (const cluster::NodeFact& node : cluster_->nodes())
      if (node.id != bus_.self()) send(node.id, kFiguresTopic, bytes);
    figures_[instance] = message;
  }
}

}  // namespace shoal::serving
