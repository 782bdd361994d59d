#include "model_run.h"

#include <algorithm>
#include <numeric>

#include "model/decoder_engine.h"

namespace shoal::bench {
namespace {

constexpr uint32_t kPageTokens = 32;  // as a node has them
constexpr uint32_t kChunkTokens = 512;

uint32_t pages_of(uint32_t tokens) {
  return (tokens + kPageTokens - 1) / kPageTokens;
}

}  // namespace

ModelRun::ModelRun(const ModelTask& task, uint32_t kv_tokens, const LoadEngine& load)
    : checkpoint_(std::make_unique<formats::Checkpoint>(need(formats::Checkpoint::open(task.path)))),
      spec_(std::make_unique<model::DecoderSpec>(need(model::read_decoder_spec(*checkpoint_)))) {
  model::CpuEngineOptions options;
  options.stage = model::whole_model(*spec_);
  options.threads = task.threads;
  options.cores = task.cores;
  options.kv.page_tokens = kPageTokens;
  options.kv.page_count = pages_of(kv_tokens);
  options.kv.state_slots = model::has_recurrent_layers(*spec_) ? 64 : 0;
  std::unique_ptr<engine::Engine> engine = load ? load(*checkpoint_, *spec_, options)
                                                : need(model::load_cpu_engine(*checkpoint_, *spec_, options));
  stage_ = std::make_unique<runtime::Stage>(std::move(engine), true);
}

runtime::Step ModelRun::new_step() {
  runtime::Step step{.id = ++step_id_};
  step.ended = std::exchange(ended_, {});
  return step;
}

std::vector<int32_t> ModelRun::random_tokens(uint32_t count) {
  std::vector<int32_t> tokens(count);
  for (int32_t& token : tokens) {
    random_ = random_ * 6364136223846793005u + 1442695040888963407u;
    token = static_cast<int32_t>((random_ >> 33) % spec_->vocabulary_size);
  }
  return tokens;
}

void ModelRun::start_sequence(runtime::Step& step, uint32_t prompt_tokens, uint32_t capacity_tokens) {
  const Sequence sequence{.id = ++sequence_id_,
                          .context_tokens = 0,
                          .first_page = next_page_,
                          .page_count = pages_of(capacity_tokens),
                          .last_token = 0};
  next_page_ += sequence.page_count;
  step.started.push_back(
      {.sequence = sequence.id, .prompt_tokens = prompt_tokens, .sampling = {.temperature = 0}});
  sequences_.push_back(sequence);
}

void ModelRun::add_rows(runtime::Step& step, Sequence& sequence, std::span<const int32_t> tokens,
                        bool samples) {
  runtime::StepSequence rows{.sequence = sequence.id,
                             .context_tokens = sequence.context_tokens,
                             .row_count = static_cast<uint32_t>(tokens.size()),
                             .samples = samples,
                             .first_page_index = 0};
  rows.pages.resize(sequence.page_count);
  std::iota(rows.pages.begin(), rows.pages.end(), sequence.first_page);
  sequence.context_tokens += rows.row_count;
  step.sequences.push_back(std::move(rows));
  step.token_ids.insert(step.token_ids.end(), tokens.begin(), tokens.end());
}

void ModelRun::run(const runtime::Step& step) {
  const runtime::StageOutput output = need(stage_->run(step, {}));
  for (const runtime::StepToken& token : output.tokens)
    for (Sequence& sequence : sequences_)
      if (sequence.id == token.sequence) sequence.last_token = token.sampled.token;
}

void ModelRun::start(uint32_t count, uint32_t prompt_tokens) {
  constexpr uint32_t kRoomTokens = 256;  // to decode
  for (const Sequence& sequence : sequences_) ended_.push_back(sequence.id);
  sequences_.clear();
  next_page_ = 0;
  for (uint32_t i = 0; i < count; ++i) {
    const std::vector<int32_t> prompt = random_tokens(prompt_tokens);
    for (uint32_t first = 0; first < prompt_tokens; first += kChunkTokens) {
      const uint32_t rows = std::min(kChunkTokens, prompt_tokens - first);
      runtime::Step step = new_step();
      if (first == 0) start_sequence(step, prompt_tokens, prompt_tokens + kRoomTokens);
      add_rows(step, sequences_.back(), std::span(prompt).subspan(first, rows),
               first + rows == prompt_tokens);
      run(step);
    }
  }
}

void ModelRun::start_long(uint32_t context_tokens) {
  start(1, std::min(kChunkTokens, context_tokens));
  // What was read is in the first pages; a second sequence finds copies of it as if they were its prefix.
  const uint32_t source_pages = sequences_.front().context_tokens / kPageTokens;
  for (const Sequence& sequence : sequences_) ended_.push_back(sequence.id);
  sequences_.clear();
  runtime::Step step = new_step();
  next_page_ = 0;
  start_sequence(step, context_tokens, context_tokens + kChunkTokens);
  Sequence& sequence = sequences_.back();
  for (uint32_t page = source_pages; page < pages_of(context_tokens); ++page)
    step.page_copies.push_back({.from = page % source_pages, .to = page});
  sequence.context_tokens = context_tokens - 1;
  add_rows(step, sequence, random_tokens(1), true);
  run(step);
}

Times ModelRun::decode() {
  return time_of([&] {
    runtime::Step step = new_step();
    for (Sequence& sequence : sequences_) add_rows(step, sequence, std::span(&sequence.last_token, 1), true);
    run(step);
  });
}

Times ModelRun::read_prompt(uint32_t tokens) {
  for (const Sequence& sequence : sequences_) ended_.push_back(sequence.id);
  sequences_.clear();
  next_page_ = 0;
  const std::vector<int32_t> prompt = random_tokens(tokens);
  return time_of([&] {
    runtime::Step step = new_step();
    start_sequence(step, tokens, tokens);
    add_rows(step, sequences_.back(), prompt, true);
    run(step);
  });
}

double ModelRun::active_bytes() const {
  const model::ModelCost cost = need(model::model_cost(*spec_, *checkpoint_));
  double bytes = static_cast<double>(cost.head_bytes);
  for (const model::LayerCost& layer : cost.layers) bytes += static_cast<double>(layer.active_bytes);
  return bytes;
}

double ModelRun::kv_bytes_per_token() const {
  uint64_t values = 0;
  for (const model::LayerSpec& layer : spec_->layers) values += model::kv_values_per_token(layer);
  return 2.0 * static_cast<double>(values);  // f16
}

}  // namespace shoal::bench
