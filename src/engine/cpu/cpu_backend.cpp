#include "engine/cpu/cpu_backend.h"

#include <algorithm>
#include <cstring>
#include <fmt/format.h>

#include "base/assert.h"
#include "base/limits.h"
#include "base/system.h"
#include "engine/cpu/arena.h"
#include "engine/cpu/attention_plan.h"
#include "engine/cpu/kernels.h"
#include "engine/cpu/kv_cache.h"
#include "engine/cpu/matrix_product.h"
#include "engine/cpu/rope_table.h"
#include "engine/cpu/thread_pool.h"
#include "formats/dequantise.h"

namespace shoal::engine {

static_assert(Backend<CpuBackend>);

namespace {

constexpr uint64_t kSerialValues = 32 << 10;  // elementwise work that is not worth waking a thread for

// A rope table of this step, for the layers that share it.
struct RopeTable {
  const float* frequencies;
  size_t pairs;
  float magnitude;
  float* cosines;  // [rows, pairs]
  float* sines;    // [rows, pairs]
  cpu::ArenaBlock memory;
};

uint32_t largest_head_dim(std::span<const KvLayerShape> layers) {
  uint32_t largest = 1;
  for (const KvLayerShape& layer : layers) largest = std::max(largest, layer.head_dim);
  return largest;
}

}  // namespace

struct CpuBackend::State {
  State(CpuBackendOptions given, const cpu::Kernels& chosen, cpu::KvCache cache, unsigned threads)
      : options(std::move(given)),
        kernels(chosen),
        kv(std::move(cache)),
        pool(threads),
        product(kernels, pool, arena),
        attention(kernels, pool, largest_head_dim(options.kv_layers)) {}

  Tensor allocate(uint32_t rows, uint32_t columns) {
    cpu::ArenaBlock memory = arena.allocate_floats(size_t{rows} * columns);
    return {memory.floats(), rows, columns, std::move(memory)};
  }

  // Calls function(first, end) for ranges of the rows of a tensor.
  template <class Function>
  void for_rows(uint32_t rows, uint32_t columns, Function function) {
    if (uint64_t{rows} * columns <= kSerialValues) return function(0u, rows);
    uint32_t tasks = std::min(rows, pool.thread_count() * 4);
    pool.run(tasks, [&](uint32_t task, unsigned) {
      function(static_cast<uint32_t>(uint64_t{rows} * task / tasks),
               static_cast<uint32_t>(uint64_t{rows} * (task + 1) / tasks));
    });
  }

  const RopeTable& rope_table(const StepView& step, const RopeOp& op) {
    size_t pairs = op.inverse_frequencies.size();
    for (const RopeTable& table : rope_tables) {
      if (table.frequencies == op.inverse_frequencies.data() && table.pairs == pairs &&
          table.magnitude == op.magnitude) {
        return table;
      }
    }
    auto rows = static_cast<uint32_t>(step.positions.size());
    cpu::ArenaBlock memory = arena.allocate_floats(2 * rows * pairs);
    float *cosines = memory.floats(), *sines = cosines + rows * pairs;
    for_rows(rows, static_cast<uint32_t>(pairs * 8), [&](uint32_t first, uint32_t end) {
      cpu::fill_rope_table(op, step.positions.subspan(first, end - first), cosines + first * pairs,
                           sines + first * pairs);
    });
    return rope_tables.emplace_back(op.inverse_frequencies.data(), pairs, op.magnitude, cosines, sines,
                                    std::move(memory));
  }

  CpuBackendOptions options;
  const cpu::Kernels& kernels;
  cpu::KvCache kv;
  cpu::ThreadPool pool;
  cpu::Arena arena;
  cpu::MatrixProduct product;
  cpu::AttentionPlan attention;
  std::vector<RopeTable> rope_tables;
  Tensor returned;  // keeps the last output's values until the next step
  uint64_t weight_bytes = 0;
};

CpuBackend::CpuBackend(std::unique_ptr<State> state) : state_(std::move(state)) {}
CpuBackend::CpuBackend(CpuBackend&&) noexcept = default;
CpuBackend& CpuBackend::operator=(CpuBackend&&) noexcept = default;
CpuBackend::~CpuBackend() = default;

Result<CpuBackend> CpuBackend::create(CpuBackendOptions options) {
  SHOAL_TRY(const cpu::Kernels* kernels, cpu::select_kernels(options.isa));
  SHOAL_TRY(cpu::KvCache cache, cpu::KvCache::create(options.kv, options.kv_layers));
  if (options.shard.count == 0 || options.shard.rank >= options.shard.count) {
    return fail(ErrorCode::invalid_argument,
                fmt::format("rank {} of {} ranks", options.shard.rank, options.shard.count));
  }
  if (options.shard.count > 1 && !options.sum_over_ranks) {
    return fail(ErrorCode::invalid_argument, "a shard of several ranks needs a way to sum over them");
  }
  unsigned threads = options.thread_count == 0 ? usable_core_count() : options.thread_count;
  return CpuBackend(std::make_unique<State>(std::move(options), *kernels, std::move(cache), threads));
}

// --- Weights ---

Result<CpuWeight> CpuBackend::load_matrix(const formats::Checkpoint& checkpoint,
                                          const formats::TensorInfo& info, Cut cut) {
  if (info.shape.size() != 2 || info.shape[0] == 0 || info.shape[1] == 0 ||
      info.shape[0] > limits::kMaxVocabulary || info.shape[1] > limits::kMaxWidth) {
    return fail(ErrorCode::unsupported,
                fmt::format("tensor {} is not a matrix of a size that shoal runs", info.name));
  }
  auto rows = static_cast<uint32_t>(info.shape[0]), columns = static_cast<uint32_t>(info.shape[1]);
  uint32_t first_row = 0, first_column = 0;
  const TensorShard& shard = state_->options.shard;
  if (cut == Cut::rows) {
    if (rows % shard.count != 0) {
      return fail(ErrorCode::unsupported,
                  fmt::format("{} rows of {} do not divide over {} ranks", rows, info.name, shard.count));
    }
    rows /= shard.count;
    first_row = rows * shard.rank;
  } else if (cut == Cut::columns) {
    uint32_t block = formats::type_info(info.type).block_values;
    if (columns % (uint64_t{block} * shard.count) != 0) {
      return fail(ErrorCode::unsupported,
                  fmt::format("{} columns of {} do not divide over {} ranks in blocks of {}", columns,
                              info.name, shard.count, block));
    }
    columns /= shard.count;
    first_column = columns * shard.rank;
  }
  Weight weight;
  SHOAL_TRY(weight.matrix, cpu::PackedMatrix::pack(info.type, checkpoint.bytes(info), info.shape[1],
                                                   first_row, rows, first_column, columns, state_->pool));
  checkpoint.drop_pages(info);
  state_->weight_bytes += weight.matrix.bytes();
  return weight;
}

Result<CpuWeight> CpuBackend::load_embedding(const formats::Checkpoint& checkpoint,
                                             const formats::TensorInfo& info) {
  if (info.shape.size() != 2 || info.shape[0] > limits::kMaxVocabulary || info.shape[1] > limits::kMaxWidth) {
    return fail(ErrorCode::unsupported,
                fmt::format("tensor {} is not an embedding of a size that shoal runs", info.name));
  }
  Weight weight;
  weight.embedding = checkpoint.bytes(info);
  weight.embedding_type = info.type;
  weight.embedding_rows = static_cast<uint32_t>(info.shape[0]);
  weight.embedding_columns = static_cast<uint32_t>(info.shape[1]);
  return weight;
}

Result<CpuWeight> CpuBackend::load_vector(const formats::Checkpoint& checkpoint,
                                          const formats::TensorInfo& info, Cut cut) {
  if (info.shape.size() != 1 || info.shape[0] > limits::kMaxVocabulary) {
    return fail(ErrorCode::unsupported,
                fmt::format("tensor {} is not a vector of a size that shoal runs", info.name));
  }
  Weight weight;
  weight.vector.resize(info.shape[0]);
  SHOAL_TRY_VOID(formats::dequantise(info.type, checkpoint.bytes(info), weight.vector));
  const TensorShard& shard = state_->options.shard;
  if (cut == Cut::rows && shard.count > 1) {
    if (weight.vector.size() % shard.count != 0) {
      return fail(ErrorCode::unsupported, fmt::format("{} values of {} do not divide over {} ranks",
                                                      weight.vector.size(), info.name, shard.count));
    }
    size_t share = weight.vector.size() / shard.count;
    auto first = weight.vector.begin() + static_cast<std::ptrdiff_t>(share * shard.rank);
    weight.vector = std::vector<float>(first, first + static_cast<std::ptrdiff_t>(share));
  }
  state_->weight_bytes += weight.vector.size() * sizeof(float);
  return weight;
}

// --- Ops ---

void CpuBackend::begin(const StepView& step) {
  state_->rope_tables.clear();
  state_->returned = {};
  state_->arena.tidy();
  uint32_t rows = 0;
  for (const SequenceRows& sequence : step.sequences) {
    SHOAL_ASSERT(sequence.first_row == rows);
    rows += sequence.row_count;
    if (state_->kv.layer_count() == 0) continue;
    uint64_t tokens = uint64_t{sequence.context_tokens} + sequence.row_count;
    SHOAL_ASSERT(tokens <= uint64_t{sequence.pages.size()} * state_->options.kv.page_tokens);
    for (uint32_t page : sequence.pages) SHOAL_ASSERT(page < state_->options.kv.page_count);
  }
  SHOAL_ASSERT(rows == step.positions.size());
}

CpuTensor CpuBackend::embed(const Weight& embedding, const StepView& step) {
  auto rows = static_cast<uint32_t>(step.token_ids.size());
  Tensor result = state_->allocate(rows, embedding.embedding_columns);
  size_t row_bytes = embedding.embedding.size() / std::max(1u, embedding.embedding_rows);
  state_->for_rows(rows, result.columns, [&](uint32_t first, uint32_t end) {
    for (uint32_t row = first; row < end; ++row) {
      auto token = static_cast<uint32_t>(step.token_ids[row]);
      SHOAL_ASSERT(token < embedding.embedding_rows);
      auto read = formats::dequantise(embedding.embedding_type,
                                      embedding.embedding.subspan(token * row_bytes, row_bytes),
                                      std::span(result.row(row), result.columns));
      SHOAL_ASSERT(read.has_value());
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

CpuTensor CpuBackend::rope(Tensor x, const StepView& step, const RopeOp& op, uint32_t head_size) {
  auto pairs = static_cast<uint32_t>(op.inverse_frequencies.size());
  SHOAL_ASSERT(pairs * 2 == op.dimensions && op.dimensions <= head_size && x.columns % head_size == 0);
  SHOAL_ASSERT(x.rows == step.positions.size());
  const RopeTable& table = state_->rope_table(step, op);
  auto rotate =
      op.pairs == RopePairs::halves ? state_->kernels.rope_halves : state_->kernels.rope_interleaved;
  state_->for_rows(x.rows, x.columns, [&](uint32_t first, uint32_t end) {
    for (uint32_t row = first; row < end; ++row) {
      for (uint32_t head = 0; head < x.columns; head += head_size) {
        rotate(x.row(row) + head, table.cosines + size_t{row} * pairs, table.sines + size_t{row} * pairs,
               pairs);
      }
    }
  });
  return x;
}

CpuTensor CpuBackend::attend(Tensor queries, Tensor keys, Tensor values, const StepView& step,
                             const AttentionOp& op) {
  cpu::KvCache& cache = state_->kv;
  SHOAL_ASSERT(op.layer < cache.layer_count() && op.kv_heads == cache.kv_heads(op.layer) &&
               op.head_dim == cache.head_dim(op.layer) && op.query_heads % op.kv_heads == 0);
  SHOAL_ASSERT(queries.columns == op.query_heads * op.head_dim && keys.columns == op.kv_heads * op.head_dim &&
               values.columns == keys.columns);
  for (const SequenceRows& sequence : step.sequences) {
    state_->for_rows(sequence.row_count, keys.columns, [&](uint32_t first, uint32_t end) {
      for (uint32_t row = first; row < end; ++row) {
        uint32_t step_row = sequence.first_row + row;
        cache.append(state_->kernels, op.layer, sequence.pages, sequence.context_tokens + row,
                     keys.row(step_row), values.row(step_row));
      }
    });
  }
  Tensor result = state_->allocate(queries.rows, queries.columns);
  state_->attention.run(cache, step, op, queries.data, result.data);
  return result;
}

CpuTensor CpuBackend::activate_multiply(Tensor gate, Tensor up, Activation activation) {
  SHOAL_ASSERT(gate.rows == up.rows && gate.columns == up.columns);
  Tensor result = state_->allocate(gate.rows, gate.columns);
  auto activate =
      activation == Activation::silu ? state_->kernels.silu_multiply : state_->kernels.gelu_tanh_multiply;
  state_->for_rows(gate.rows, gate.columns, [&](uint32_t first, uint32_t end) {
    activate(gate.row(first), up.row(first), size_t{end - first} * gate.columns, result.row(first));
  });
  return result;
}

CpuTensor CpuBackend::add(Tensor a, Tensor b) {
  SHOAL_ASSERT(a.rows == b.rows && a.columns == b.columns);
  Tensor result = state_->allocate(a.rows, a.columns);
  state_->kernels.add(a.data, b.data, size_t{a.rows} * a.columns, result.data);
  return result;
}

CpuTensor CpuBackend::all_reduce(Tensor x) {
  if (state_->options.shard.count > 1) state_->options.sum_over_ranks({x.data, size_t{x.rows} * x.columns});
  return x;
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
  state_->returned = x;
  return std::span<const float>(x.data, size_t{x.rows} * x.columns);
}

void CpuBackend::copy_page(uint32_t from, uint32_t to) {
  state_->kv.copy_page(from, to);
}

EngineMemory CpuBackend::memory() const {
  return {.weight_bytes = state_->weight_bytes,
          .kv_bytes = state_->kv.bytes(),
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
