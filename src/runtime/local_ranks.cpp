#include "runtime/local_ranks.h"

#include <fmt/format.h>
#include <mutex>
#include <optional>
#include <thread>

namespace shoal::runtime {

Result<LocalRanks> LocalRanks::load(const formats::Checkpoint& checkpoint, const model::DecoderSpec& spec,
                                    model::CpuEngineOptions options) {
  const uint32_t count = options.shard.count;
  if (count == 0 || count > link::kMaxGroupRanks)
    return fail(ErrorCode::invalid_argument,
                fmt::format("{} ranks, from 1 to {} are possible", count, link::kMaxGroupRanks));
  LocalRanks ranks;
  std::vector<std::vector<link::Link*>> peers(count, std::vector<link::Link*>(count));
  for (uint32_t b = 1; b < count; ++b) {
    for (uint32_t a = 0; a < b; ++a) {
      const link::MemoryLinks& wire = ranks.wires_.emplace_back(link::make_memory_links());
      peers[a][b] = wire.first.get();
      peers[b][a] = wire.second.get();
    }
  }
  for (uint32_t rank = 0; rank < count; ++rank) {
    LinkGroup& group = *ranks.groups_.emplace_back(std::make_unique<LinkGroup>());
    if (count > 1) group.join(std::move(peers[rank]));
    options.shard.rank = rank;
    options.ranks = &group;
    SHOAL_TRY(auto engine, model::load_cpu_engine(checkpoint, spec, options));
    ranks.stages_.emplace_back(std::move(engine), options.stage.heads && rank == 0);
  }
  return ranks;
}

template <class Output>
Result<Output> LocalRanks::run_all(Result<Output> (Stage::*run_stage)(const Step&, std::span<const float>),
                                   const Step& step, std::span<const float> hidden_in) {
  std::mutex failing;  // guards first_failure
  std::optional<Error> first_failure;
  const auto run_rank = [&](size_t rank) {
    Result<Output> output = (stages_[rank].*run_stage)(step, hidden_in);
    if (output) return output;
    {
      const std::scoped_lock lock(failing);
      if (!first_failure) first_failure = output.error();
    }
    groups_[rank]->leave();
    return output;
  };
  std::vector<std::thread> followers;
  for (size_t rank = 1; rank < stages_.size(); ++rank) followers.emplace_back([&, rank] { run_rank(rank); });
  Result<Output> output = run_rank(0);
  for (std::thread& follower : followers) follower.join();
  if (first_failure) return std::unexpected(*first_failure);
  return output;
}

Result<StageOutput> LocalRanks::run(const Step& step, std::span<const float> hidden_in) {
  return run_all(&Stage::run, step, hidden_in);
}

Result<std::span<const float>> LocalRanks::run_rows(const Step& step, std::span<const float> hidden_in) {
  return run_all(&Stage::run_rows, step, hidden_in);
}

}  // namespace shoal::runtime
