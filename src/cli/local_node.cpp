#include "cli/local_node.h"

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>
#include <cstdlib>
#include <filesystem>
#include <fmt/format.h>
#include <future>
#include <thread>

#include "base/file.h"
#include "base/system.h"
#include "cli/node_host.h"
#include "cli/solo_bus.h"

namespace shoal::cli {
namespace {

// A folder of our own under the system's temporary one.
Result<std::filesystem::path> make_scratch() {
  std::error_code error;
  std::string name = (std::filesystem::temp_directory_path(error) / "shoal-run-XXXXXX").string();
  if (error || ::mkdtemp(name.data()) == nullptr) return fail_errno("cannot make a temporary folder", name);
  return std::filesystem::path(name);
}

}  // namespace

struct LocalNode::State {
  std::filesystem::path scratch;
  boost::asio::io_context io;
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work =
      boost::asio::make_work_guard(io);
  std::unique_ptr<NodeHost> host;
  uint16_t port = 0;
  std::thread thread;  // workers are tied to the thread that starts them: this one lives as long as the node
};

LocalNode::LocalNode(std::unique_ptr<State> state) : state_(std::move(state)) {}

Result<std::unique_ptr<LocalNode>> LocalNode::start(const LocalNodeOptions& options) {
  SHOAL_TRY(std::filesystem::path scratch, make_scratch());
  auto node = std::unique_ptr<LocalNode>(new LocalNode(std::make_unique<State>()));
  State& state = *node->state_;
  state.scratch = std::move(scratch);
  NodeHost::Options host_options;
  host_options.http.addresses = {"127.0.0.1"};
  host_options.http.port = 0;
  host_options.node.name = host_name();
  host_options.node.cluster_name = fmt::format("alone-{:016x}", random_u64());
  host_options.node.data_directory = state.scratch;
  host_options.node.model_roots = hub::ModelStore::default_roots(data_directory());
  host_options.node.memory_bytes = options.memory_bytes;
  host_options.node.threads = options.threads;
  host_options.node.listen_addresses = {"127.0.0.1"};
  auto bus = std::make_unique<SoloBus>(state.io, fmt::format("{:016x}", random_u64()));
  SHOAL_TRY(state.host, NodeHost::start(state.io, std::move(host_options), std::move(bus)));
  state.port = state.host->port();
  state.thread = std::thread([&state] { state.io.run(); });
  return node;
}

LocalNode::~LocalNode() {
  if (state_->thread.joinable()) {
    std::promise<void> stopped;
    boost::asio::post(state_->io,
                      [&] { state_->host->stop(Duration::zero(), [&stopped] { stopped.set_value(); }); });
    stopped.get_future().wait();
    boost::asio::post(state_->io, [&] {
      state_->host.reset();
      state_->work.reset();
      state_->io.stop();
    });
    state_->thread.join();
  }
  state_->host.reset();
  std::error_code ignored;
  std::filesystem::remove_all(state_->scratch, ignored);
}

std::string LocalNode::url() const {
  return fmt::format("http://127.0.0.1:{}", state_->port);
}

}  // namespace shoal::cli
