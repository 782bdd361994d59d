// One stage in this process: a Stage for each rank of its tensor-parallel group, the followers each on a
// thread of its own while a step runs, with Links in memory between any two. One rank is the plain case.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "base/result.h"
#include "formats/checkpoint.h"
#include "link/memory_link.h"
#include "model/decoder_engine.h"
#include "model/decoder_spec.h"
#include "runtime/link_group.h"
#include "runtime/stage.h"

namespace shoal::runtime {

class LocalRanks {
 public:
  // `options` but for the shard's rank and the group, which are of each rank. The checkpoint must outlive it.
  static Result<LocalRanks> load(const formats::Checkpoint& checkpoint, const model::DecoderSpec& spec,
                                 model::CpuEngineOptions options);

  // The leader's output. Error: the one that a rank failed with, first; the others' follow from it, and the
  // group is of no more use.
  Result<StageOutput> run(const Step& step, std::span<const float> hidden_in);
  Result<std::span<const float>> run_rows(const Step& step, std::span<const float> hidden_in);

  const Stage& rank(size_t index) const { return stages_[index]; }  // 0 leads
  size_t rank_count() const { return stages_.size(); }

 private:
  template <class Output>
  Result<Output> run_all(Result<Output> (Stage::*run_stage)(const Step&, std::span<const float>),
                         const Step& step, std::span<const float> hidden_in);

  std::vector<link::MemoryLinks> wires_;            // between ranks 0 1, 0 2, 1 2, 0 3, …
  std::vector<std::unique_ptr<LinkGroup>> groups_;  // of each rank; engines point at them
  std::vector<Stage> stages_;
};

}  // namespace shoal::runtime
