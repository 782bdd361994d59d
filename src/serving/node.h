// One `shoal serve`: the composition of cluster, models, workers, owners and gateway on one io_context
// thread. Front ends (HTTP, terminal) talk to it through Service. Slow work goes to a small task pool, so
// that the loop only passes messages.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "cluster/cluster.h"
#include "hub/model_store.h"
#include "serving/card_shelf.h"
#include "serving/cluster_report.h"
#include "serving/drift_watch.h"
#include "serving/gateway.h"
#include "serving/link_survey.h"
#include "serving/machine_survey.h"
#include "serving/owner.h"
#include "serving/peer_search.h"
#include "serving/relay.h"
#include "serving/service.h"
#include "serving/task_pool.h"
#include "serving/workers.h"

namespace shoal::serving {

struct NodeOptions {
  std::string name;  // for people; empty: the host's
  std::string cluster_name = "shoal";
  std::filesystem::path data_directory;
  std::vector<std::filesystem::path> model_roots;  // empty: ModelStore::default_roots(data_directory)
  uint64_t memory_bytes = 0;                       // that shoal may use; 0: 80 % of what is available now
  uint32_t threads = 0;                            // of a worker; 0: all usable cores
  std::string isa;                                 // of the engine; empty: the best there is
  engine::KvType kv_type = engine::KvType::f16;
  uint32_t kv_page_tokens = 32;
  std::vector<std::string> listen_addresses;  // numeric, of the workers' links; empty: all interfaces
  std::string api_url;                        // as others reach our API; empty when on loopback only
  std::filesystem::path executable;           // the shoal binary; empty: this program
  std::optional<MachineFigures> figures;      // instead of measuring
  bool measure_again = false;                 // whatever an earlier start found
  WorkerFactory worker_factory;               // empty: worker::WorkerClient::start
};

class Node final : public Service, private cluster::WorldEffects, private WorkerEvents, private Directory {
 public:
  // `bus` and `io` must outlive the node; `io` must be run by one thread, which makes all calls.
  Node(boost::asio::io_context& io, NodeOptions options, cluster::Bus& bus);
  ~Node() override;

  Result<> start();  // joins the cluster; a machine that was never measured is measured meanwhile
  // Ends all generations (unavailable), stops the workers and leaves the cluster.
  void stop();

  GenerationId generate(GenerateRequest request, std::shared_ptr<GenerationListener> listener) override;
  void cancel(GenerationId generation) override;
  std::vector<ModelEntry> models() const override;
  Json cluster() const override;
  void place(const PlaceOptions& options, JsonCallback done) override;
  void stop_instance(const std::string& instance_or_model, JsonCallback done) override;
  std::string metrics() const override;

  const cluster::NodeId& id() const { return bus_.self(); }
  const hub::ModelStore& model_store() const { return *store_; }

 private:
  // WorldEffects: what the cluster wants done on this node.
  void start_worker(const cluster::InstanceFact& instance, uint32_t rank) override;
  void connect_worker(const std::string& instance, uint32_t epoch, uint32_t rank, uint32_t peer,
                      const std::vector<std::string>& addresses, uint16_t port) override;
  void stop_worker(const std::string& instance, uint32_t epoch, uint32_t rank) override;
  void instance_up(const cluster::InstanceFact& instance) override;
  void instance_down(const std::string& instance, uint32_t epoch, const Error& why) override;
  void instance_changed(const std::string& instance, const cluster::InstanceFact* fact,
                        const Error* why) override;
  void node_left(const cluster::NodeId& node) override;

  // WorkerEvents.
  void worker_listening(const RankKey& rank, uint16_t port) override;
  void worker_progress(const RankKey& rank, float fraction) override;
  void worker_loaded(const RankKey& rank, const engine::EngineMemory& memory) override;
  void worker_ready(const RankKey& rank) override;
  void worker_step_result(const RankKey& rank, runtime::StepResult result) override;
  void worker_lost(const RankKey& rank, const Error& error) override;

  // Directory: what the gateway asks.
  void find_card(const std::string& model_or_instance, CardCallback done) override;
  void ready_instance(const std::string& model_or_instance, std::shared_ptr<const ModelCard> card,
                      InstanceCallback done) override;
  std::string node_name(const cluster::NodeId& node) const override;

  cluster::NodeFact own_fact() const;
  void listen_to_topics();
  void listen_to_relays();
  template <class Message>
  void on_message(std::string_view topic, std::function<void(const cluster::NodeId&, Message)> handle);
  void send(const cluster::NodeId& receiver, std::string_view topic, const Bytes& payload);
  InstanceOwner* find_owner(std::string_view instance, uint32_t epoch);
  void tick();
  void arm_timer();
  void refresh_models();
  void set_models(const std::vector<hub::StoredModel>& models);
  void announce(const hub::StoredModel& model);
  void update_free_memory();
  struct Drift {
    DriftWatch watch;
    std::vector<std::string> advice;
  };
  void watch_drift();
  void hold_against_plan(const std::string& instance, uint32_t epoch, const ModelCard& card,
                         const std::vector<double>& token_milliseconds);
  std::vector<std::string> advice_of(const std::string& instance) const;
  void broadcast_figures();
  void start_measuring();
  void listen_to_probes();
  void show_figures(cluster::NodeFact& fact, const MachineFigures& figures) const;
  bool steps_may_run() const;  // on this node, as far as it knows

  void launch(const cluster::InstanceFact& instance, uint32_t rank, const ModelCard& card);
  // The request for the largest of the attempts that fits, and the placements for it.
  Result<cluster::PlaceRequest> fitting_request(const ModelCard& card, const PlaceOptions& options,
                                                std::vector<planner::Placement>* placements) const;
  void add_shared_alternative(cluster::PlaceRequest request,
                              std::vector<planner::Placement>& placements) const;
  void place_for_all(std::shared_ptr<const ModelCard> card, const PlaceOptions& options,
                     InstanceCallback done);
  void place_card(std::shared_ptr<const ModelCard> card, const PlaceOptions& options, InstanceCallback done);
  void preview_card(std::shared_ptr<const ModelCard> card, const PlaceOptions& options, JsonCallback done);
  // Calls `then` once the other nodes were asked for a model that was named by path; at once for other names.
  void gather_holders(const ModelCard& card, std::function<void()> then);
  void seek_for(const cluster::NodeId& asker, const SeekMessage& message);
  const cluster::InstanceFact* find_serving(const std::string& model_or_instance,
                                            const ModelCard& card) const;
  void tell_waiters(const std::string& instance, const Result<cluster::InstanceFact>& outcome);
  // The node to ask for a model that we do not hold; nullopt when we do, or nobody does.
  std::optional<cluster::NodeId> holder_elsewhere(const std::string& model_or_instance) const;
  void place_here(const PlaceOptions& options, JsonCallback done);
  Error explain_missing(const std::string& model, const Error& error) const;
  NodeNames names() const;
  Json instance_report(const cluster::InstanceFact& instance) const;

  boost::asio::io_context& io_;
  NodeOptions options_;
  cluster::Bus& bus_;
  SystemClock clock_;
  uint64_t memory_budget_bytes_ = 0;
  std::shared_ptr<const hub::ModelStore> store_;
  std::unique_ptr<Workers> workers_;
  std::unique_ptr<cluster::Cluster> cluster_;
  std::map<std::string, std::unique_ptr<InstanceOwner>, std::less<>> owners_;  // by instance
  std::map<std::string, OwnedModel> models_here_;  // by instance, of those with workers here
  std::map<std::string, std::function<void(const cluster::NodeId&, ByteView)>, std::less<>> topics_;
  std::map<std::string, std::vector<InstanceCallback>> waiting_for_instance_;  // by instance
  std::map<std::string, std::vector<InstanceCallback>> placing_;  // by model digest, for requests
  std::map<std::string, Drift> drifts_;                           // by instance that we own
  std::map<std::string, FiguresMessage> figures_;                 // by instance, told by owners
  std::map<std::string, int64_t> created_;  // Unix seconds, by digest of what is held here
  std::unique_ptr<TaskPool> tasks_;
  std::unique_ptr<CardShelf> shelf_;
  std::unique_ptr<Gateway> gateway_;
  std::unique_ptr<Relay> relay_;
  std::unique_ptr<PeerSearch> search_;
  std::unique_ptr<MachineSurvey> machine_survey_;
  std::unique_ptr<LinkSurvey> link_survey_;
  std::unique_ptr<boost::asio::steady_timer> timer_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  uint64_t ticks_ = 0;
};

}  // namespace shoal::serving
