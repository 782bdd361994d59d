// CpuBackend: from tensors of a checkpoint to weights.
#include <cmath>
#include <fmt/format.h>

#include "base/assert.h"
#include "base/limits.h"
#include "engine/cpu/cpu_backend_state.h"
#include "formats/dequantise.h"

namespace shoal::engine {

Result<CpuWeight> CpuBackend::load_matrix(const formats::Checkpoint& checkpoint, const MatrixSource& source,
                                          Cut cut) {
  const formats::TensorInfo& info = *source.tensor;
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

Result<CpuWeight> CpuBackend::load_stack(const formats::Checkpoint& checkpoint,
                                         std::span<const MatrixSource> sources, Cut cut) {
  Weight stack;
  stack.stack.reserve(sources.size());
  for (const MatrixSource& source : sources) {
    SHOAL_TRY(Weight weight, load_matrix(checkpoint, source, cut));
    stack.stack.push_back(std::move(weight.matrix));
  }
  return stack;
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

namespace {

float mapped(float value, VectorMap map) {
  switch (map) {
    case VectorMap::none:
      return value;
    case VectorMap::plus_one:
      return 1 + value;
    case VectorMap::negative_exponential:
      return -std::exp(value);
  }
  return value;
}

// Appends the chosen values of one source.
Result<> append_values(const formats::Checkpoint& checkpoint, const VectorSource& source,
                       std::vector<float>& values) {
  const formats::TensorInfo& info = *source.tensor;
  uint64_t count = 1;
  for (size_t i = source.index ? 1 : 0; i < info.shape.size(); ++i) count *= info.shape[i];
  if (info.shape.empty() || count == 0 || count > limits::kMaxVocabulary || info.scales) {
    return fail(ErrorCode::unsupported,
                fmt::format("tensor {} is not a vector of a size that shoal runs", info.name));
  }
  SHOAL_TRY(const uint64_t bytes, formats::tensor_bytes(info.type, 1, count));
  std::vector<float> whole(count);
  SHOAL_TRY_VOID(formats::dequantise(
      info.type, checkpoint.bytes(info).subspan(source.index.value_or(0) * bytes, bytes), whole));
  const uint32_t chosen = source.values.size(static_cast<uint32_t>(count));
  SHOAL_ASSERT(chosen > 0 && source.values.at(chosen - 1) < count);
  for (uint32_t i = 0; i < chosen; ++i) values.push_back(mapped(whole[source.values.at(i)], source.map));
  return {};
}

}  // namespace

Result<CpuWeight> CpuBackend::load_vector(const formats::Checkpoint& checkpoint,
                                          std::span<const VectorSource> sources, Cut cut) {
  Weight weight;
  for (const VectorSource& source : sources) SHOAL_TRY_VOID(append_values(checkpoint, source, weight.vector));
  const TensorShard& shard = state_->options.shard;
  if (cut == Cut::rows && shard.count > 1) {
    if (weight.vector.size() % shard.count != 0) {
      return fail(ErrorCode::unsupported,
                  fmt::format("{} values of {} do not divide over {} ranks", weight.vector.size(),
                              sources.front().tensor->name, shard.count));
    }
    size_t share = weight.vector.size() / shard.count;
    auto first = weight.vector.begin() + static_cast<std::ptrdiff_t>(share * shard.rank);
    weight.vector = std::vector<float>(first, first + static_cast<std::ptrdiff_t>(share));
  }
  state_->weight_bytes += weight.vector.size() * sizeof(float);
  return weight;
}

}  // namespace shoal::engine
