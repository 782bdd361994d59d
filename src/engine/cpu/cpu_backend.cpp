#include "engine/cpu/cpu_backend.h"

#include <algorithm>
#include <cstring>
#include <fmt/format.h>
#include <numeric>

#include "base/assert.h"
#include "base/system.h"
#include "engine/cpu/cpu_backend_state.h"

namespace shoal::engine {

static_assert(Backend<CpuBackend>);

namespace {

void activate(const cpu::Kernels& kernels, const Activation& activation, const float* gate, const float* up,
              size_t size, float* output) {
  switch (activation.kind) {
    case Activation::Kind::silu:
      return kernels.silu_multiply(gate, up, size, output);
    case Activation::Kind::gelu_tanh:
      return kernels.gelu_tanh_multiply(gate, up, size, output);
    case Activation::Kind::sigmoid:
      return kernels.sigmoid_multiply(gate, up, size, output);
    case Activation::Kind::clamped_swiglu:
      return kernels.clamped_swiglu(gate, up, activation.alpha, activation.limit, size, output);
  }
}

}  // namespace

CpuBackend::CpuBackend(std::unique_ptr<State> state) : state_(std::move(state)) {}
CpuBackend::CpuBackend(CpuBackend&&) noexcept = default;
CpuBackend& CpuBackend::operator=(CpuBackend&&) noexcept = default;
CpuBackend::~CpuBackend() = default;

Result<CpuBackend> CpuBackend::create(CpuBackendOptions options) {
  SHOAL_TRY(const cpu::Kernels* kernels, cpu::select_kernels(options.isa));
  SHOAL_TRY(cpu::KvCache cache, cpu::KvCache::create(options.kv, options.kv_layers));
  SHOAL_TRY(cpu::RecurrentStates states,
            cpu::RecurrentStates::create(options.kv.state_slots, options.kv_layers));
  unsigned threads = options.thread_count == 0 ? usable_core_count() : options.thread_count;
  return CpuBackend(
      std::make_unique<State>(std::move(options), *kernels, std::move(cache), std::move(states), threads));
}

void CpuBackend::begin(const StepView& step) {
  state_->rope_tables.clear();
  state_->returned = {};
  state_->failure.reset();
  state_->arena.tidy();
  if (state_->options.thread_share) {
    const ThreadShare share = state_->options.thread_share();
    state_->pool.limit(share.first, share.count);
  }
  uint32_t rows = 0;
  for (const SequenceRows& sequence : step.sequences) {
    SHOAL_ASSERT(sequence.first_row == rows);
    rows += sequence.row_count;
    SHOAL_ASSERT(state_->states.slot_count() == 0 || sequence.state_slot < state_->states.slot_count());
    if (state_->kv.bytes() == 0) continue;  // no layer keeps anything in pages
    uint64_t tokens = uint64_t{sequence.context_tokens} + sequence.row_count;
    SHOAL_ASSERT(tokens <= uint64_t{sequence.pages.size()} * state_->options.kv.page_tokens);
    for (uint32_t page : sequence.pages) SHOAL_ASSERT(page < state_->options.kv.page_count);
  }
  SHOAL_ASSERT(rows == step.positions.size());
}

CpuTensor CpuBackend::embed(const Weight& weight, const StepView& step) {
  const cpu::FileMatrix& embedding = weight.embedding;
  auto rows = static_cast<uint32_t>(step.token_ids.size());
  Tensor result = state_->allocate(rows, embedding.file_columns);
  state_->for_rows(rows, result.columns, [&](uint32_t first, uint32_t end) {
    for (uint32_t row = first; row < end; ++row) {
      auto token = static_cast<uint32_t>(step.token_ids[row]);
      SHOAL_ASSERT(token < embedding.file_rows);
      cpu::read_row(embedding, token, std::span(result.row(row), result.columns));
    }
  });
  return result;
}

CpuTensor CpuBackend::input(const StepView& step, std::span<const float> hidden) {
  auto rows = static_cast<uint32_t>(step.positions.size());
  SHOAL_ASSERT(rows != 0 && hidden.size() % rows == 0);
  Tensor result = state_->allocate(rows, static_cast<uint32_t>(hidden.size() / rows));
  std::memcpy(result.data, hidden.data(), hidden.size_bytes());
  return result;
}

CpuTensor CpuBackend::rms_norm(Tensor x, const Weight& weight, float epsilon) {
  SHOAL_ASSERT(weight.vector.size() == x.columns);
  Tensor result = state_->allocate(x.rows, x.columns);
  state_->for_rows(x.rows, x.columns, [&](uint32_t first, uint32_t end) {
    for (uint32_t row = first; row < end; ++row) {
      state_->kernels.rms_norm(x.row(row), weight.vector.data(), x.columns, epsilon, result.row(row));
    }
  });
  return result;
}

std::pair<CpuTensor, CpuTensor> CpuBackend::add_rms_norm(Tensor a, Tensor b, const Weight& weight,
                                                         float epsilon) {
  SHOAL_ASSERT(a.rows == b.rows && a.columns == b.columns && weight.vector.size() == a.columns);
  Tensor sum = state_->allocate(a.rows, a.columns), normed = state_->allocate(a.rows, a.columns);
  state_->for_rows(a.rows, a.columns, [&](uint32_t first, uint32_t end) {
    for (uint32_t row = first; row < end; ++row) {
      state_->kernels.add(a.row(row), b.row(row), a.columns, sum.row(row));
      state_->kernels.rms_norm(sum.row(row), weight.vector.data(), a.columns, epsilon, normed.row(row));
    }
  });
  return {sum, normed};
}

CpuTensor CpuBackend::linear(Tensor x, const Weight& weight) {
  Tensor result = state_->allocate(x.rows, weight.matrix.rows());
  cpu::ProductOutput output = {&weight.matrix, result.data};
  state_->product.run(x.data, x.rows, x.columns, std::span(&output, 1));
  return result;
}

std::vector<CpuTensor> CpuBackend::linears(Tensor x, std::span<const Weight* const> weights) {
  std::vector<Tensor> results;
  std::vector<cpu::ProductOutput> outputs;
  for (const Weight* weight : weights) {
    results.push_back(state_->allocate(x.rows, weight->matrix.rows()));
    outputs.push_back({&weight->matrix, results.back().data});
  }
  state_->product.run(x.data, x.rows, x.columns, outputs);
  return results;
}

CpuTensor CpuBackend::add_bias(Tensor x, const Weight& bias) {
  SHOAL_ASSERT(bias.vector.size() == x.columns);
  for (uint32_t row = 0; row < x.rows; ++row) {
    state_->kernels.add(x.row(row), bias.vector.data(), x.columns, x.row(row));
  }
  return x;
}

CpuTensor CpuBackend::head_norm(Tensor x, const Weight& weight, uint32_t head_size, float epsilon) {
  SHOAL_ASSERT(weight.vector.size() == head_size && x.columns % head_size == 0);
  state_->for_rows(x.rows, x.columns, [&](uint32_t first, uint32_t end) {
    for (float* head = x.row(first); head != x.row(end); head += head_size) {
      state_->kernels.rms_norm(head, weight.vector.data(), head_size, epsilon, head);
    }
  });
  return x;
}

CpuTensor CpuBackend::activate_multiply(Tensor gate, Tensor up, const Activation& activation) {
  SHOAL_ASSERT(gate.rows == up.rows && gate.columns == up.columns);
  Tensor result = state_->allocate(gate.rows, gate.columns);
  state_->for_rows(gate.rows, gate.columns, [&](uint32_t first, uint32_t end) {
    activate(state_->kernels, activation, gate.row(first), up.row(first), size_t{end - first} * gate.columns,
             result.row(first));
  });
  return result;
}

CpuTensor CpuBackend::add(Tensor a, Tensor b) {
  SHOAL_ASSERT(a.rows == b.rows && a.columns == b.columns);
  Tensor result = state_->allocate(a.rows, a.columns);
  state_->kernels.add(a.data, b.data, size_t{a.rows} * a.columns, result.data);
  return result;
}

CpuTensor CpuBackend::scale(Tensor x, float factor) {
  state_->for_rows(x.rows, x.columns, [&](uint32_t first, uint32_t end) {
    state_->kernels.scale(x.row(first), factor, size_t{end - first} * x.columns, x.row(first));
  });
  return x;
}

CpuTensor CpuBackend::softcap(Tensor x, float cap) {
  SHOAL_ASSERT(cap > 0);
  state_->for_rows(x.rows, x.columns, [&](uint32_t first, uint32_t end) {
    state_->kernels.softcap(x.row(first), cap, size_t{end - first} * x.columns, x.row(first));
  });
  return x;
}

CpuTensor CpuBackend::head_columns(Tensor x, uint32_t head_size, uint32_t first, uint32_t count) {
  SHOAL_ASSERT(x.columns % head_size == 0 && first + count <= head_size);
  const uint32_t heads = x.columns / head_size;
  Tensor result = state_->allocate(x.rows, heads * count);
  state_->for_rows(x.rows, result.columns, [&](uint32_t begin, uint32_t end) {
    for (uint32_t row = begin; row < end; ++row) {
      for (uint32_t head = 0; head < heads; ++head) {
        std::memcpy(result.row(row) + size_t{head} * count, x.row(row) + size_t{head} * head_size + first,
                    size_t{count} * sizeof(float));
      }
    }
  });
  return result;
}

CpuTensor CpuBackend::zeros(Tensor x) {
  Tensor result = state_->allocate(x.rows, x.columns);
  std::fill_n(result.data, size_t{x.rows} * x.columns, 0.0f);
  return result;
}

CpuTensor CpuBackend::all_reduce(Tensor x) {
  if (state_->options.ranks == nullptr || state_->failure) return x;
  state_->note(state_->options.ranks->sum({x.data, size_t{x.rows} * x.columns}));
  return x;
}

CpuTensor CpuBackend::all_gather(Tensor x, std::span<const uint32_t> counts) {
  if (state_->options.ranks == nullptr) return x;
  const uint32_t columns = std::accumulate(counts.begin(), counts.end(), 0u);
  Tensor result = state_->allocate(x.rows, columns);
  if (state_->failure) return result;
  const std::span<const float> mine(x.data, size_t{x.rows} * x.columns);
  if (x.rows == 1) {
    state_->note(state_->options.ranks->gather(mine, {result.data, columns}, counts));
    return result;
  }
  // The ranks' rows come rank by rank.
  const Tensor gathered = state_->allocate(x.rows, columns);
  std::vector<uint32_t> values(counts.begin(), counts.end());
  for (uint32_t& count : values) count *= x.rows;
  state_->note(state_->options.ranks->gather(mine, {gathered.data, size_t{x.rows} * columns}, values));
  const float* from = gathered.data;
  for (uint32_t first = 0; const uint32_t count : counts) {
    for (uint32_t row = 0; row < x.rows; ++row, from += count)
      std::copy_n(from, count, result.row(row) + first);
    first += count;
  }
  return result;
}

bool CpuBackend::failed() const {
  return state_->failure.has_value();
}

CpuTensor CpuBackend::rows(Tensor x, std::span<const uint32_t> indices) {
  Tensor result = state_->allocate(static_cast<uint32_t>(indices.size()), x.columns);
  for (uint32_t i = 0; i < result.rows; ++i) {
    SHOAL_ASSERT(indices[i] < x.rows);
    std::memcpy(result.row(i), x.row(indices[i]), size_t{x.columns} * sizeof(float));
  }
  return result;
}

Result<std::span<const float>> CpuBackend::output(Tensor x) {
  if (state_->failure) return std::unexpected(*state_->failure);
  state_->returned = x;
  return std::span<const float>(x.data, size_t{x.rows} * x.columns);
}

void CpuBackend::copy_page(uint32_t from, uint32_t to) {
  state_->kv.copy_page(from, to);
}

EngineMemory CpuBackend::memory() const {
  return {.weight_bytes = state_->weight_bytes,
          .kv_bytes = state_->kv.bytes() + state_->states.bytes(),
          .scratch_bytes = state_->arena.capacity_bytes()};
}

const KvConfig& CpuBackend::kv() const {
  return state_->options.kv;
}
unsigned CpuBackend::thread_count() const {
  return state_->pool.thread_count();
}
cpu::Isa CpuBackend::isa() const {
  return state_->kernels.isa;
}

Result<uint64_t> CpuBackend::page_bytes(const KvConfig& kv, std::span<const KvLayerShape> layers) {
  return cpu::KvCache::page_bytes(kv, layers);
}

}  // namespace shoal::engine
