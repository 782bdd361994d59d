#include "engine/cpu/matrix_product.h"

#include <algorithm>
#include <array>

#include "base/assert.h"

namespace shoal::engine::cpu {
namespace {

// Weight bytes times row tiles below which waking threads costs more than it brings (about 4 us of one core).
constexpr uint64_t kSerialWork = 160 << 10;
// A task should stream at least this much, for the memory's sake.
constexpr uint64_t kTaskBytes = 128 << 10;
constexpr uint64_t kTasksPerThread = 8;
// Prepared rows that stay in the second-level cache while panels pass by.
constexpr size_t kRowBlockBytes = 384 << 10;
// Values of activations below which they are prepared on the caller alone.
constexpr uint64_t kSerialValues = 32 << 10;

Kernels::Multiply multiply_of(const Kernels& kernels, formats::TensorType type) {
  using formats::TensorType;
  switch (type) {
    case TensorType::f32:
      return kernels.multiply_f32;
    case TensorType::f16:
      return kernels.multiply_f16;
    case TensorType::bf16:
      return kernels.multiply_bf16;
    case TensorType::q8_0:
      return kernels.multiply_q8_0;
    case TensorType::q4_0:
      return kernels.multiply_q4_0;
    case TensorType::q4_k:
      return kernels.multiply_q4_k;
    case TensorType::q6_k:
      return kernels.multiply_q6_k;
    default:
      return nullptr;
  }
  return nullptr;
}

Kernels::Prepare prepare_of(const Kernels& kernels, ActivationFormat format) {
  switch (format) {
    case ActivationFormat::f32:
      return kernels.prepare_f32;
    case ActivationFormat::q8_32:
      return kernels.prepare_q8_32;
    case ActivationFormat::q8_256:
      return kernels.prepare_q8_256;
  }
  return nullptr;
}

}  // namespace

void MatrixProduct::run(const float* input, uint32_t row_count, uint32_t columns,
                        std::span<const ProductOutput> outputs) {
  std::array<const uint8_t*, 3> prepared = {};
  std::array<ArenaBlock, 3> memory;
  for (const ProductOutput& output : outputs) {
    SHOAL_ASSERT(output.matrix->columns() == columns);
    ActivationFormat format = output.matrix->activation_format();
    auto index = static_cast<size_t>(format);
    if (!prepared[index]) prepared[index] = prepare(format, input, row_count, columns, memory[index]);
  }
  bool worth_waking = split(row_count, outputs);
  auto run_chunk = [&](uint32_t task, unsigned) {
    const Chunk& chunk = chunks_[task];
    const ProductOutput& output = outputs[chunk.output];
    multiply(chunk, output, prepared[static_cast<size_t>(output.matrix->activation_format())], row_count);
  };
  if (worth_waking) {
    pool_.run(static_cast<uint32_t>(chunks_.size()), run_chunk);
  } else {
    for (uint32_t task = 0; task < chunks_.size(); ++task) run_chunk(task, 0);
  }
}

const uint8_t* MatrixProduct::prepare(ActivationFormat format, const float* input, uint32_t row_count,
                                      uint32_t columns, ArenaBlock& memory) {
  if (format == ActivationFormat::f32 && row_count == 1) return reinterpret_cast<const uint8_t*>(input);
  size_t row_bytes = prepared_row_bytes(format, columns);
  memory = arena_.allocate(row_count * row_bytes);
  auto* tiles = reinterpret_cast<uint8_t*>(memory.data());
  Kernels::Prepare prepare_tile = prepare_of(kernels_, format);
  uint32_t tile_rows = kernels_.tile_rows, tile_count = (row_count + tile_rows - 1) / tile_rows;
  auto prepare_one = [&](uint32_t tile, unsigned) {
    uint32_t row = tile * tile_rows;
    prepare_tile(input + size_t{row} * columns, columns, std::min(tile_rows, row_count - row), columns,
                 tiles + row * row_bytes);
  };
  if (uint64_t{row_count} * columns <= kSerialValues) {
    for (uint32_t tile = 0; tile < tile_count; ++tile) prepare_one(tile, 0);
  } else {
    pool_.run(tile_count, prepare_one);
  }
  return tiles;
}

bool MatrixProduct::split(uint32_t row_count, std::span<const ProductOutput> outputs) {
  uint64_t tile_count = (row_count + kernels_.tile_rows - 1) / kernels_.tile_rows;
  uint64_t bytes = 0;
  for (const ProductOutput& output : outputs) bytes += output.matrix->bytes();
  uint64_t work = bytes * tile_count, threads = pool_.thread_count();
  uint64_t tasks = work < kSerialWork ? 1 : std::clamp(work / kTaskBytes, threads, threads * kTasksPerThread);
  uint64_t chunk_bytes = tasks == 1 ? bytes : bytes / tasks + 1;
  chunks_.clear();
  for (uint32_t i = 0; i < outputs.size(); ++i) {
    const PackedMatrix& matrix = *outputs[i].matrix;
    auto step =
        static_cast<uint32_t>(std::max<uint64_t>(1, chunk_bytes / std::max<size_t>(1, matrix.panel_bytes())));
    for (uint32_t panel = 0; panel < matrix.panel_count();
         panel += std::min(step, matrix.panel_count() - panel)) {
      chunks_.push_back({.output = i,
                         .first_panel = panel,
                         .end_panel = std::min(matrix.panel_count() - panel, step) + panel});
    }
  }
  return tasks > 1;
}

void MatrixProduct::multiply(const Chunk& chunk, const ProductOutput& output, const uint8_t* activations,
                             uint32_t row_count) const {
  const PackedMatrix& matrix = *output.matrix;
  size_t row_bytes = prepared_row_bytes(matrix.activation_format(), matrix.columns());
  auto block_rows =
      static_cast<uint32_t>(std::max<size_t>(1, kRowBlockBytes / row_bytes / kernels_.tile_rows)) *
      kernels_.tile_rows;
  Kernels::Multiply multiply_panels = multiply_of(kernels_, matrix.type());
  for (uint32_t row = 0; row < row_count; row += block_rows) {
    multiply_panels({.panels = matrix.panels(),
                     .panel_bytes = matrix.panel_bytes(),
                     .first_panel = chunk.first_panel,
                     .end_panel = chunk.end_panel,
                     .output_rows = matrix.rows(),
                     .columns = matrix.columns(),
                     .activations = activations + row * row_bytes,
                     .row_count = std::min(block_rows, row_count - row),
                     .output = output.output + size_t{row} * matrix.rows(),
                     .output_stride = matrix.rows()});
  }
}

}  // namespace shoal::engine::cpu
