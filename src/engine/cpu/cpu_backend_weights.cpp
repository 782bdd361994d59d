// CpuBackend: from tensors of a checkpoint to weights, and the products of stacks of them.
#include <cmath>
#include <fmt/format.h>

#include "base/assert.h"
#include "base/limits.h"
#include "engine/cpu/cpu_backend_state.h"
#include "formats/tensor_rows.h"

namespace shoal::engine {

namespace {

// The source's part of a matrix.
Result<cpu::MatrixShare> share_of(const cpu::FileMatrix& matrix, const MatrixSource& source) {
  const Slice &rows = source.part_rows, &columns = source.part_columns;
  if (!rows.lies_in(matrix.rows()) || !columns.lies_in(matrix.columns())) {
    return fail(ErrorCode::unsupported,
                fmt::format("{} has {} rows and {} columns, which lack some of a rank's part",
                            source.tensor->name, matrix.rows(), matrix.columns()));
  }
  return cpu::MatrixShare{.first_row = rows.first,
                          .rows = rows.size(matrix.rows()),
                          .first_column = columns.first,
                          .columns = columns.size(matrix.columns())};
}

// The file's pages of a tensor and of the scales beside it.
void drop_pages(const formats::Checkpoint& checkpoint, const formats::TensorInfo& info) {
  checkpoint.drop_pages(info);
  if (info.scales) checkpoint.drop_pages(*info.scales);
  if (info.biases) checkpoint.drop_pages(*info.biases);
}

}  // namespace

Result<CpuWeight> CpuBackend::load_matrix(const formats::Checkpoint& checkpoint, const MatrixSource& source) {
  SHOAL_TRY(Weight stack, load_stack(checkpoint, {&source, 1}));
  Weight weight;
  weight.matrix = std::move(stack.stack.front());
  return weight;
}

Result<CpuWeight> CpuBackend::load_stack(const formats::Checkpoint& checkpoint,
                                         std::span<const MatrixSource> sources) {
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
    SHOAL_ASSERT(source.part_rows == sources[0].part_rows && source.part_columns == sources[0].part_columns);
    files.push_back(file);
  }
  const std::string& name = sources[0].tensor->name;
  SHOAL_TRY(const cpu::MatrixShare share, share_of(files[0], sources[0]));
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
  if (!source.part.lies_in(chosen)) {
    return fail(ErrorCode::unsupported,
                fmt::format("tensor {} has {} values, which lack some of a rank's part", info.name, chosen));
  }
  const uint32_t size = source.part.size(chosen);
  for (uint32_t i = 0; i < size; ++i)
    values.push_back(mapped(whole[source.values.at(source.part.first + i)], source.map));
  return {};
}

}  // namespace

Result<CpuWeight> CpuBackend::load_vector(const formats::Checkpoint& checkpoint,
                                          std::span<const VectorSource> sources) {
  Weight weight;
  for (const VectorSource& source : sources) SHOAL_TRY_VOID(append_values(checkpoint, source, weight.vector));
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
