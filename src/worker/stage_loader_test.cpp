// Which bytes of a model a stage reads: pages of other stages' tensors cannot be read at all here, so that
// touching one ends the test program.
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include "model/decoder_engine.h"
#include "runtime/fixture_models.h"

namespace shoal::worker {
namespace {

using runtime::must;

// "blk.3.attn_q.weight" -> 3; nullopt for embedding, head and final norm.
std::optional<uint32_t> layer_of(const std::string& name) {
  if (!name.starts_with("blk.")) return std::nullopt;
  return static_cast<uint32_t>(std::stoul(name.substr(4)));
}

// Forbids the whole pages of a tensor; returns how many bytes they are.
size_t forbid(ByteView bytes) {
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto begin = (reinterpret_cast<uintptr_t>(bytes.data()) + page - 1) / page * page;
  const auto end = (reinterpret_cast<uintptr_t>(bytes.data()) + bytes.size()) / page * page;
  if (begin >= end) return 0;
  EXPECT_EQ(::mprotect(reinterpret_cast<void*>(begin), end - begin, PROT_NONE), 0);
  return end - begin;
}

TEST(StageLoading, ReadsTheStagesOwnTensorsAndNoOthers) {
  for (const bool first : {true, false}) {
    const runtime::LoadedModel model = runtime::open_model("models/demo/shoal-demo-q8_0.gguf");
    const auto stages = must(model::even_stages(model.spec, 2));
    const engine::StageRange range = stages[first ? 0 : 1];
    size_t forbidden = 0;
    for (const formats::TensorInfo& tensor : model.checkpoint.tensors()) {
      const std::optional<uint32_t> layer = layer_of(tensor.name);
      const bool ours = layer ? *layer >= range.first_layer && *layer < range.end_layer
                        : tensor.name == model.spec.embedding.name ? range.embeds || model.spec.tied()
                                                                   : range.heads;
      if (!ours) forbidden += forbid(model.checkpoint.bytes(tensor));
    }
    EXPECT_GT(forbidden, model.checkpoint.total_bytes() / 4);
    std::vector<float> fractions;
    model::CpuEngineOptions options;
    options.stage = range;
    options.kv = {.type = engine::KvType::f16, .page_tokens = 16, .page_count = 4};
    options.threads = 1;
    options.progress = [&](float fraction) { fractions.push_back(fraction); };
    const auto engine = must(model::load_cpu_engine(model.checkpoint, model.spec, options));
    EXPECT_LT(engine->memory().weight_bytes, model.checkpoint.total_bytes() - forbidden / 2);
    EXPECT_TRUE(std::ranges::is_sorted(fractions));
    EXPECT_GE(fractions.size(), range.end_layer - range.first_layer);
  }
}

}  // namespace
}  // namespace shoal::worker
