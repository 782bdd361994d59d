#include "model/decoder_engine.h"

#include <fmt/format.h>

#include "base/assert.h"
#include "base/limits.h"
#include "engine/cpu/cpu_backend.h"
#include "model/decoder.h"
#include "model/shard_plan.h"

namespace shoal::model {

namespace {

using engine::CpuBackend;
using engine::StageRange;
using engine::StepView;

engine::KvLayerShape kv_shape(const LayerSpec& layer) {
  if (const auto* attention = std::get_if<AttentionSpec>(&layer.mixer))
    return {.kv_heads = attention->kv_heads, .head_dim = attention->head_dim};
  if (const auto* latent = std::get_if<LatentAttentionSpec>(&layer.mixer); latent && !is_elsewhere(*latent))
    return {.latent_rank = latent->latent_rank, .latent_rope = latent->rope.dimensions};
  return {.state_floats = state_floats(layer)};
}

class CpuEngine final : public engine::Engine {
 public:
  static Result<std::unique_ptr<engine::Engine>> load(const formats::Checkpoint& checkpoint,
                                                      const DecoderSpec& spec,
                                                      const CpuEngineOptions& options) {
    engine::CpuBackendOptions backend_options{.thread_count = options.threads,
                                              .isa = options.isa,
                                              .kv = options.kv,
                                              .kv_layers = {},
                                              .ranks = options.shard.count > 1 ? options.ranks : nullptr,
                                              .cores = options.cores,
                                              .thread_share = options.thread_share};
    for (uint32_t index = options.stage.first_layer; index < options.stage.end_layer; ++index) {
      backend_options.kv_layers.push_back(kv_shape(spec.layers[index]));
    }
    SHOAL_TRY(CpuBackend backend, CpuBackend::create(std::move(backend_options)));
    // The decoder points at the backend, so the backend gets its final place first.
    std::unique_ptr<CpuEngine> engine(new CpuEngine(std::move(backend), spec, options));
    SHOAL_TRY(Decoder<CpuBackend> decoder,
              Decoder<CpuBackend>::load(engine->backend_, checkpoint, spec, options.stage, options.progress));
    engine->decoder_ = std::make_unique<Decoder<CpuBackend>>(std::move(decoder));
    return engine;
  }

  uint32_t hidden_size() const override { return bounds_.hidden_size; }
  uint32_t vocabulary_size() const override { return bounds_.vocabulary_size; }
  engine::EngineMemory memory() const override { return backend_.memory(); }
  const engine::KvConfig& kv() const override { return backend_.kv(); }

  Result<std::span<const float>> step(const StepView& step, std::span<const float> hidden_in) override {
    SHOAL_TRY_VOID(check_step(step, hidden_in, bounds_));
    if (step.token_ids.empty()) return std::span<const float>();
    return decoder_->run(step, hidden_in);
  }

  void copy_page(uint32_t from, uint32_t to) override {
    SHOAL_ASSERT(from < bounds_.page_count && to < bounds_.page_count);
    backend_.copy_page(from, to);
  }

 private:
  CpuEngine(CpuBackend backend, const DecoderSpec& spec, const CpuEngineOptions& options)
      : backend_(std::move(backend)),
        bounds_{.stage = options.stage,
                .hidden_size = spec.hidden_size,
                .vocabulary_size = spec.vocabulary_size,
                .page_tokens = options.kv.page_tokens,
                .page_count = options.kv.page_count} {}

  CpuBackend backend_;
  StepBounds bounds_;
  std::unique_ptr<Decoder<CpuBackend>> decoder_;
};

Result<> check_stage(const StageRange& stage, const DecoderSpec& spec) {
  const bool first = stage.first_layer == 0;
  const bool last = stage.end_layer == spec.layer_count();
  const bool empty = stage.first_layer == stage.end_layer && (!stage.embeds || stage.heads);
  if (stage.first_layer > stage.end_layer || stage.end_layer > spec.layer_count() || empty)
    return fail(ErrorCode::invalid_argument,
                fmt::format("stage: layers {} to {} of a model with {}", stage.first_layer, stage.end_layer,
                            spec.layer_count()));
  if ((stage.embeds && !first) || (stage.heads && !last))
    return fail(ErrorCode::invalid_argument,
                fmt::format("stage: layers {} to {} of {} cannot {}", stage.first_layer, stage.end_layer,
                            spec.layer_count(), stage.embeds && !first ? "embed" : "head"));
  return {};
}

Result<> check_sequence(const engine::SequenceRows& sequence, uint32_t row, const StepView& step,
                        const StepBounds& bounds) {
  if (sequence.row_count == 0 || sequence.first_row != row ||
      sequence.row_count > step.token_ids.size() - row)
    return fail(ErrorCode::invalid_argument,
                fmt::format("step: a sequence has rows {} + {}, expected them from row {} of {}",
                            sequence.first_row, sequence.row_count, row, step.token_ids.size()));
  const uint64_t tokens = uint64_t{sequence.context_tokens} + sequence.row_count;
  if (tokens > limits::kMaxContextTokens)
    return fail(ErrorCode::limit_exceeded, fmt::format("step: a sequence of {} tokens, more than {}", tokens,
                                                       limits::kMaxContextTokens));
  if (sequence.pages.size() * bounds.page_tokens < tokens)
    return fail(ErrorCode::invalid_argument, fmt::format("step: {} pages of {} tokens for a sequence of {}",
                                                         sequence.pages.size(), bounds.page_tokens, tokens));
  const uint64_t used_pages = (tokens + bounds.page_tokens - 1) / bounds.page_tokens;
  for (uint32_t page : sequence.pages.first(used_pages))
    if (page >= bounds.page_count)
      return fail(ErrorCode::invalid_argument, fmt::format("step: page {} of {}", page, bounds.page_count));
  for (uint32_t index = 0; index < sequence.row_count; ++index)
    if (const int64_t position = step.positions[row + index];
        position != sequence.context_tokens + int64_t{index})
      return fail(ErrorCode::invalid_argument,
                  fmt::format("step: row {} has position {}, expected {}", row + index, position,
                              sequence.context_tokens + int64_t{index}));
  return {};
}

}  // namespace

StageRange whole_model(const DecoderSpec& spec) {
  return {.first_layer = 0, .end_layer = spec.layer_count(), .embeds = true, .heads = true};
}

Result<std::vector<StageRange>> even_stages(const DecoderSpec& spec, uint32_t count) {
  if (count == 0 || count > spec.layer_count() + 1)
    return fail(ErrorCode::invalid_argument,
                fmt::format("{} stages of a model with {} layers", count, spec.layer_count()));
  std::vector<StageRange> stages;
  stages.reserve(count);
  for (uint64_t index = 0; index < count; ++index)
    stages.push_back({.first_layer = static_cast<uint32_t>(index * spec.layer_count() / count),
                      .end_layer = static_cast<uint32_t>((index + 1) * spec.layer_count() / count),
                      .embeds = index == 0,
                      .heads = index + 1 == count});
  return stages;
}

Result<> check_step(const StepView& step, std::span<const float> hidden_in, const StepBounds& bounds) {
  const size_t rows = step.token_ids.size();
  if (rows > limits::kMaxStepRows)
    return fail(ErrorCode::limit_exceeded,
                fmt::format("step: {} rows, more than {}", rows, limits::kMaxStepRows));
  if (step.positions.size() != rows)
    return fail(ErrorCode::invalid_argument,
                fmt::format("step: {} positions for {} rows", step.positions.size(), rows));
  for (int32_t token : step.token_ids)
    if (token < 0 || static_cast<uint32_t>(token) >= bounds.vocabulary_size)
      return fail(ErrorCode::invalid_argument,
                  fmt::format("token id {} is outside the vocabulary of {}", token, bounds.vocabulary_size));
  uint32_t row = 0;
  for (const engine::SequenceRows& sequence : step.sequences) {
    SHOAL_TRY_VOID(check_sequence(sequence, row, step, bounds));
    row += sequence.row_count;
  }
  if (row != rows)
    return fail(ErrorCode::invalid_argument, fmt::format("step: sequences have {} rows of {}", row, rows));
  if (step.output_rows.size() > rows)
    return fail(ErrorCode::invalid_argument,
                fmt::format("step: {} output rows of {}", step.output_rows.size(), rows));
  for (uint32_t output : step.output_rows)
    if (output >= rows)
      return fail(ErrorCode::invalid_argument, fmt::format("step: output row {} of {}", output, rows));
  const size_t hidden_values = bounds.stage.embeds ? 0 : rows * bounds.hidden_size;
  if (hidden_in.size() != hidden_values)
    return fail(ErrorCode::invalid_argument,
                fmt::format("step: {} hidden values came in, expected {}", hidden_in.size(), hidden_values));
  return {};
}

Result<std::unique_ptr<engine::Engine>> load_cpu_engine(const formats::Checkpoint& checkpoint,
                                                        const DecoderSpec& spec,
                                                        const CpuEngineOptions& options) {
  SHOAL_TRY_VOID(check_stage(options.stage, spec));
  if (options.shard.count > 1 && options.ranks == nullptr)
    return fail(ErrorCode::invalid_argument, fmt::format("rank {} of {} cannot reach the others",
                                                         options.shard.rank, options.shard.count));
  if (options.kv.page_tokens == 0 || options.kv.page_count == 0)
    return fail(ErrorCode::invalid_argument, fmt::format("KV cache: {} pages of {} tokens",
                                                         options.kv.page_count, options.kv.page_tokens));
  SHOAL_TRY(const DecoderSpec own, shard_spec(spec, checkpoint, options.shard));
  return CpuEngine::load(checkpoint, own, options);
}

}  // namespace shoal::model
