// CpuBackend: from tensors of a checkpoint to weights, and the products of stacks of them.
#include <cmath>
#include <fmt/format.h>

#include "base/assert.h"
#include "base/limits.h"
#include "engine/cpu/cpu_backend_state.h"
#include "formats/tensor_rows.h"

namespace shoal::engine {

namespace {

// This rank's part of a matrix.
Result<cpu::MatrixShare> share_of(const cpu::FileMatrix& matrix, const TensorShard& shard, Cut cut,
                                  const std::string& name) {
  cpu::MatrixShare share = {.rows = matrix.rows(), .columns = matrix.columns()};
  if (cut == Cut::none || shard.count == 1) return share;
  uint32_t& size = cut == Cut::rows ? share.rows : share.columns;
  const uint32_t whole = size;
  size = whole / shard.count;
  (cut == Cut::rows ? share.first_row : share.first_column) = size * shard.rank;
  if (whole % shard.count != 0 || (cut == Cut::columns && !matrix.keeps_type(share))) {
    return fail(ErrorCode::unsupported, fmt::format("{} {} of {} ({}) do not divide over {} ranks", whole,
                                                    cut == Cut::rows ? "rows" : "columns", name,
                                                    formats::to_string(matrix.type), shard.count));
  }
  return share;
}

// The file's pages of a tensor and of the scales beside it.
void drop_pages(const formats::Checkpoint& checkpoint, const formats::TensorInfo& info) {
  checkpoint.drop_pages(info);
  if (info.scales) checkpoint.drop_pages(*info.scales);
  if (info.biases) checkpoint.drop_pages(*info.biases);
}

}  // namespace

Result<CpuWeight> CpuBackend::load_matrix(const formats::Checkpoint& checkpoint, const MatrixSource& source,
                                          Cut cut) {
  SHOAL_TRY(Weight stack, load_stack(checkpoint, {&source, 1}, cut));
  Weight weight;
  weight.matrix = std::move(stack.stack.front());
  return weight;
}

Result<CpuWeight> CpuBackend::load_stack(const formats::Checkpoint& checkpoint,
                                         std::span<const MatrixSource> sources, Cut cut) {
  SHOAL_ASSERT(!sources.empty());
  std::vector<cpu::FileMatrix> files;
  for (const MatrixSource& source : sources) {
    SHOAL_TRY(cpu::FileMatrix file, cpu::FileMatrix::of(checkpoint, source));
    if (!files.empty() && (file.rows() != files[0].rows() || file.columns() != files[0].columns())) {
      return fail(
          ErrorCode::unsupported,
          fmt::format("{} has {} rows and {} columns, {} has {} and {}", source.tensor->name, file.rows(),
                      file.columns(), sources[0].tensor->name, files[0].rows(), files[0].columns()));
    }
    files.push_back(file);
  }
  const std::string& name = sources[0].tensor->name;
  SHOAL_TRY(const cpu::MatrixShare share, share_of(files[0], state_->options.shard, cut, name));
  auto drop = [&](size_t first, size_t end) {
    const formats::TensorInfo* last = nullptr;
    for (size_t i = first; i < end; ++i) {
      if (sources[i].tensor != last) drop_pages(checkpoint, *sources[i].tensor);
      last = sources[i].tensor;
    }
  };
  auto packed = cpu::PackedMatrix::pack_stack(files, share, state_->pool, drop);
  if (!packed) {
    Error error = std::move(packed.error());
    error.message = fmt::format("{}: {}", name, error.message);
    return std::unexpected(std::move(error));
  }
  Weight weight;
  weight.stack = *std::move(packed);
  for (const cpu::PackedMatrix& matrix : weight.stack) state_->weight_bytes += matrix.bytes();
  return weight;
}

Result<CpuWeight> CpuBackend::load_embedding(const formats::Checkpoint& checkpoint,
                                             const formats::TensorInfo& info) {
  Weight weight;
  SHOAL_TRY(weight.embedding, cpu::FileMatrix::of(checkpoint, {.tensor = &info}));
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
  const size_t leading = source.index ? 1 : 0;
  uint64_t count = 1;
  for (size_t i = leading; i < info.shape.size() && count <= limits::kMaxVocabulary; ++i)
    count *= info.shape[i];
  if (info.shape.size() <= leading || count == 0 || count > limits::kMaxVocabulary ||
      (source.index && *source.index >= info.shape[0]) || !source.values.lie_in(count) ||
      uint64_t{source.values.length} * source.values.count > count) {
    return fail(ErrorCode::unsupported,
                fmt::format("tensor {} is not a vector of a size that shoal runs", info.name));
  }
  std::vector<float> whole(count);
  const uint64_t first_row = source.index.value_or(0) * (count / info.shape.back());
  SHOAL_TRY_VOID(formats::dequantise_rows(checkpoint, info, first_row, whole));
  const uint32_t chosen = source.values.size(static_cast<uint32_t>(count));
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

CpuTensor CpuBackend::head_linear(Tensor x, const Weight& stack) {
  SHOAL_ASSERT(!stack.stack.empty());
  const auto heads = static_cast<uint32_t>(stack.stack.size());
  const uint32_t inputs = stack.stack[0].columns(), outputs = stack.stack[0].rows();
  SHOAL_ASSERT(x.columns == heads * inputs);
  Tensor result = state_->allocate(x.rows, heads * outputs);
  std::vector<cpu::ProductJob> jobs;
  for (uint32_t head = 0; head < heads; ++head) {
    jobs.push_back({.matrix = &stack.stack[head],
                    .input = x.data + size_t{head} * inputs,
                    .input_stride = x.columns,
                    .row_count = x.rows,
                    .output = result.data + size_t{head} * outputs,
                    .output_stride = result.columns});
  }
  state_->product.run_jobs(jobs);
  return result;
}

}  // namespace shoal::engine
