#include <algorithm>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "benchmarks.h"
#include "figures.h"
#include "model/decoder.h"
#include "model/decoder_engine.h"
#include "model_run.h"
#include "profiled_backend.h"

namespace shoal::bench {

ProfiledBackend::Tensor ProfiledBackend::experts(const Tensor& x, const Routing& routing,
                                                 const engine::ExpertWeights<Weight>& weights,
                                                 const engine::Activation& activation) {
  Tensor result = timed("experts", [&] { return Base::experts(x, routing, weights, activation); });
  const std::set<uint32_t> used(routing.experts.begin(), routing.experts.end());
  for (const Weight* stack : {&weights.gate, &weights.up, &weights.down}) {
    for (uint32_t expert : used) ops_.back().bytes += static_cast<double>(stack->stack[expert].bytes());
    const engine::cpu::PackedMatrix& first = stack->stack.front();
    ops_.back().operations +=
        2.0 * first.rows() * first.columns() * static_cast<double>(routing.experts.size());
  }
  return result;
}

namespace {

engine::KvLayerShape kv_shape(const model::LayerSpec& layer) {
  if (const auto* attention = std::get_if<model::AttentionSpec>(&layer.mixer))
    return {.kv_heads = attention->kv_heads, .head_dim = attention->head_dim};
  if (const auto* latent = std::get_if<model::LatentAttentionSpec>(&layer.mixer))
    return {.latent_rank = latent->latent_rank, .latent_rope = latent->rope.dimensions};
  return {.state_floats = model::state_floats(layer)};
}

struct StepTimes {
  Times times;
  std::vector<OpTime> ops;
};

// What load_cpu_engine gives, over a backend that is watched.
class ProfiledEngine final : public engine::Engine {
 public:
  ProfiledEngine(const formats::Checkpoint& checkpoint, const model::DecoderSpec& spec,
                 const model::CpuEngineOptions& options, std::vector<StepTimes>& steps)
      : spec_(spec), steps_(steps) {
    engine::CpuBackendOptions backend_options;
    backend_options.thread_count = options.threads;
    backend_options.isa = options.isa;
    backend_options.kv = options.kv;
    backend_options.cores = options.cores;
    for (const model::LayerSpec& layer : spec.layers) backend_options.kv_layers.push_back(kv_shape(layer));
    backend_ =
        std::make_unique<ProfiledBackend>(need(engine::CpuBackend::create(std::move(backend_options))));
    decoder_ = std::make_unique<Decoder>(need(Decoder::load(*backend_, checkpoint, spec, options.stage, {})));
  }

  uint32_t hidden_size() const override { return spec_.hidden_size; }
  uint32_t vocabulary_size() const override { return spec_.vocabulary_size; }
  engine::EngineMemory memory() const override { return backend_->memory(); }
  const engine::KvConfig& kv() const override { return backend_->kv(); }
  void copy_page(uint32_t from, uint32_t to) override { backend_->copy_page(from, to); }

  Result<std::span<const float>> step(const engine::StepView& step, std::span<const float> hidden) override {
    const double start = seconds(), processor_start = processor_seconds();
    auto result = decoder_->run(step, hidden);
    steps_.push_back({{seconds() - start, processor_seconds() - processor_start}, backend_->ops()});
    return result;
  }

 private:
  using Decoder = model::Decoder<ProfiledBackend>;
  const model::DecoderSpec& spec_;
  std::vector<StepTimes>& steps_;
  std::unique_ptr<ProfiledBackend> backend_;
  std::unique_ptr<Decoder> decoder_;
};

bool mixes(std::string_view op) {
  return op == "attend" || op == "attend_latent" || op == "delta_net";
}

// Where an op of a step belongs. A layer begins behind the `add` that ended the one before, its mixer op is
// its middle, and its add_rms_norm begins the feed-forward; what is outside of the layers has none.
struct Place {
  int layer = -1;
  const char* part = "begin";
};

std::vector<Place> places_of(const std::vector<OpTime>& ops) {
  std::vector<Place> places(ops.size());
  int layer = -1;
  size_t behind = 0;
  for (size_t at = 0; at < ops.size(); ++at) {
    if (!mixes(ops[at].name)) continue;
    ++layer;
    size_t first = at;
    while (first > behind && std::string_view(ops[first - 1].name) != "add" &&
           std::string_view(ops[first - 1].name) != "embed")
      --first;
    size_t end = at;
    while (end < ops.size() && !(end > at && mixes(ops[end].name))) ++end;
    while (end > at && std::string_view(ops[end - 1].name) != "add") --end;  // its last op
    const char* part = "mixer, in";
    for (size_t i = first; i < end; ++i) {
      if (std::string_view(ops[i].name) == "add_rms_norm") part = "feed-forward";
      places[i] = {layer, i == at ? "mixer" : part};
      if (i == at) part = "mixer, out";
    }
    behind = end;
  }
  for (size_t i = behind; i < ops.size(); ++i) places[i] = {-1, "end"};
  return places;
}

Times gap_of(const StepTimes& step) {
  Times gap = step.times;
  for (const OpTime& op : step.ops) {
    gap.seconds -= op.times.seconds;
    gap.processor_seconds -= op.times.processor_seconds;
  }
  return gap;
}

struct Row {
  std::string op;
  std::vector<Times> layers = {};  // or one
  double bytes = 0, operations = 0;
};

void print_row(const std::string& profile, const Row& row, double total) {
  Times sum;
  std::vector<std::string> microseconds;
  for (const Times& layer : row.layers) {
    sum.seconds += layer.seconds;
    sum.processor_seconds += layer.processor_seconds;
    microseconds.push_back(fmt::format("{:.1f}", layer.seconds * 1e6));
  }
  fmt::print(
      "{{\"profile\": \"{}\", \"op\": \"{}\", \"milliseconds\": {:.4f}, \"processor_milliseconds\": {:.4f}, "
      "\"share\": {:.4f}, \"gb_per_s\": {:.2f}, \"gop_per_s\": {:.1f}, \"microseconds\": [{}]}}\n",
      profile, row.op, sum.seconds * 1e3, sum.processor_seconds * 1e3, sum.seconds / total,
      row.bytes / sum.seconds / 1e9, row.operations / sum.seconds / 1e9, fmt::join(microseconds, ", "));
}

// Over steps that had the same ops; one line of JSON an op, then one for what is between ops.
void print_profile(const std::string& name, const std::vector<StepTimes>& steps) {
  const std::vector<OpTime>& shape = steps.back().ops;
  const std::vector<Place> places = places_of(shape);
  std::vector<Times> gaps;
  for (const StepTimes& step : steps) gaps.push_back(gap_of(step));
  const Times gap = calm(gaps);
  double total = gap.seconds;
  std::vector<Row> rows;
  std::map<std::string, size_t> ordinals;  // in this layer
  int layer = -2;
  for (size_t i = 0; i < shape.size(); ++i) {
    if (places[i].layer != layer) ordinals.clear(), layer = places[i].layer;
    std::string label = fmt::format("{}: {}", places[i].part, shape[i].name);
    if (const size_t again = ordinals[label]++; again > 0) label += fmt::format(" {}", again + 1);
    auto row = std::ranges::find(rows, label, &Row::op);
    if (row == rows.end()) row = rows.insert(rows.end(), {.op = label});
    std::vector<Times> times;
    for (const StepTimes& step : steps) times.push_back(step.ops[i].times);
    row->layers.push_back(calm(times));
    row->bytes += shape[i].bytes;
    row->operations += shape[i].operations;
    total += row->layers.back().seconds;
  }
  rows.push_back({.op = "between ops", .layers = {gap}});
  for (const Row& row : rows) print_row(name, row, total);
  std::fflush(stdout);
}

// The steps from `first` on whose ops are those of the last.
std::vector<StepTimes> alike(const std::vector<StepTimes>& steps, size_t first) {
  std::vector<StepTimes> kept;
  for (size_t i = first; i < steps.size(); ++i)
    if (steps[i].ops.size() == steps.back().ops.size()) kept.push_back(steps[i]);
  return kept;
}

}  // namespace

void profile(const ModelTask& task) {
  std::vector<StepTimes> steps;
  ModelRun model(task, task.short_run ? 1024 : 16 * 512,
                 [&](const formats::Checkpoint& checkpoint, const model::DecoderSpec& spec,
                     const model::CpuEngineOptions& options) {
                   return std::make_unique<ProfiledEngine>(checkpoint, spec, options, steps);
                 });
  const std::string name = task.path.stem().string();
  const std::vector<uint32_t> sizes =
      task.short_run ? std::vector<uint32_t>{1} : std::vector<uint32_t>{1, 16};
  for (uint32_t size : sizes) {
    model.start(size, 32);
    const size_t first = steps.size() + 4;
    for (int i = 0; i < (task.short_run ? 8 : 36); ++i) model.decode();
    print_profile(fmt::format("decode {}, batch {}", name, size), alike(steps, first));
  }
  const uint32_t tokens = task.short_run ? 64 : 512;
  const size_t first = steps.size() + 1;
  for (int i = 0; i < 6; ++i) model.read_prompt(tokens);
  print_profile(fmt::format("prefill {} of {}", tokens, name), alike(steps, first));
}

}  // namespace shoal::bench
