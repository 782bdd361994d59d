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
// Prepared rows that stay in the second-level cache while panels pass by; at least so many that unpacking pays.
constexpr size_t kRowBlockBytes = 384 << 10;
constexpr size_t kMinBlockRows = 64;
// Values of activations below which they are prepared on the caller alone.
constexpr uint64_t kSerialValues = 32 << 10;
// How many prepared inputs back a job may find its own: one for each format.
constexpr size_t kSharedInputs = kActivationFormatCount;

const float* input_row(const ProductJob& job, uint32_t row) {
  return job.input + (job.input_rows ? job.input_rows[row] : row) * job.input_stride;
}

}  // namespace

void MatrixProduct::run(const float* input, uint32_t row_count, uint32_t columns,
                        std::span<const ProductOutput> outputs) {
  jobs_.clear();
  for (const ProductOutput& output : outputs) {
    SHOAL_ASSERT(output.matrix->columns() == columns);
    jobs_.push_back({.matrix = output.matrix,
                     .input = input,
                     .input_stride = columns,
                     .row_count = row_count,
                     .output = output.output,
                     .output_stride = output.matrix->rows()});
  }
  run_jobs(jobs_);
}

void MatrixProduct::run_jobs(std::span<const ProductJob> jobs) {
  prepare_inputs(jobs);
  bool worth_waking = split(jobs);
  auto run_chunk = [&](uint32_t task, unsigned) {
    const Chunk& chunk = chunks_[task];
    multiply(chunk, jobs[chunk.job], prepared_[prepared_of_[chunk.job]].rows);
  };
  if (worth_waking) {
    pool_.run(static_cast<uint32_t>(chunks_.size()), run_chunk);
  } else {
    for (uint32_t task = 0; task < chunks_.size(); ++task) run_chunk(task, 0);
  }
  block_ = {};
}

// Its index, or prepared_.size() when there is none.
uint32_t MatrixProduct::find_prepared(const ProductJob& job, ActivationFormat format) const {
  size_t oldest = prepared_.size() - std::min(prepared_.size(), kSharedInputs);
  for (size_t i = prepared_.size(); i-- > oldest;) {
    const ProductJob& other = *prepared_[i].job;
    if (prepared_[i].format == format && other.input == job.input && other.input_rows == job.input_rows &&
        other.input_stride == job.input_stride && other.row_count == job.row_count &&
        other.matrix->columns() == job.matrix->columns()) {
      return static_cast<uint32_t>(i);
    }
  }
  return static_cast<uint32_t>(prepared_.size());
}

void MatrixProduct::prepare_inputs(std::span<const ProductJob> jobs) {
  prepared_.clear();
  prepared_of_.clear();
  tiles_.clear();
  size_t bytes = 0;
  uint64_t values = 0;
  for (const ProductJob& job : jobs) {
    ActivationFormat format = job.matrix->activation_format();
    uint32_t index = find_prepared(job, format);
    prepared_of_.push_back(index);
    if (index < prepared_.size()) continue;
    auto first_tile = static_cast<uint32_t>(tiles_.size());
    prepared_.push_back({&job, format, bytes, nullptr, first_tile});
    if (format == ActivationFormat::f32 && job.row_count == 1) {
      prepared_.back().rows = reinterpret_cast<const uint8_t*>(input_row(job, 0));
      continue;
    }
    bytes += (job.row_count * prepared_row_bytes(format, job.matrix->columns()) + 63) / 64 * 64;
    values += uint64_t{job.row_count} * job.matrix->columns();
    tiles_.insert(tiles_.end(), tile_count(job.row_count), index);
  }
  if (tiles_.empty()) return;
  block_ = arena_.allocate(bytes);
  auto* block = reinterpret_cast<uint8_t*>(block_.data());
  for (Prepared& prepared : prepared_) {
    if (!prepared.rows) prepared.rows = block + prepared.offset;
  }
  auto prepare_one = [&](uint32_t tile, unsigned) { prepare_tile(prepared_[tiles_[tile]], tile, block); };
  if (values <= kSerialValues) {
    for (uint32_t tile = 0; tile < tiles_.size(); ++tile) prepare_one(tile, 0);
  } else {
    pool_.run(static_cast<uint32_t>(tiles_.size()), prepare_one);
  }
}

void MatrixProduct::prepare_tile(const Prepared& prepared, uint32_t tile, uint8_t* block) const {
  const ProductJob& job = *prepared.job;
  uint32_t first = (tile - prepared.first_tile) * kernels_.tile_rows;
  uint32_t count = std::min(kernels_.tile_rows, job.row_count - first);
  std::array<const float*, kMaxTileRows> rows = {};
  for (uint32_t r = 0; r < count; ++r) rows[r] = input_row(job, first + r);
  uint32_t columns = job.matrix->columns();
  kernels_.prepare[static_cast<size_t>(prepared.format)](
      rows.data(), count, columns,
      block + prepared.offset + first * prepared_row_bytes(prepared.format, columns));
}

bool MatrixProduct::split(std::span<const ProductJob> jobs) {
  uint64_t work = 0, threads = pool_.thread_count();
  for (const ProductJob& job : jobs) work += job.matrix->bytes() * tile_count(job.row_count);
  uint64_t tasks = work < kSerialWork ? 1 : std::clamp(work / kTaskBytes, threads, threads * kTasksPerThread);
  uint64_t chunk_work = tasks == 1 ? work : work / tasks + 1;
  chunks_.clear();
  for (uint32_t i = 0; i < jobs.size(); ++i) {
    if (jobs[i].row_count == 0) continue;
    const PackedMatrix& matrix = *jobs[i].matrix;
    uint64_t panel_work = std::max<uint64_t>(1, matrix.panel_bytes() * tile_count(jobs[i].row_count));
    uint32_t panels = matrix.panel_count();
    auto step = static_cast<uint32_t>(std::clamp<uint64_t>(chunk_work / panel_work, 1, std::max(1u, panels)));
    for (uint32_t panel = 0; panel < panels; panel += std::min(step, panels - panel)) {
      chunks_.push_back(
          {.job = i, .first_panel = panel, .end_panel = panel + std::min(step, panels - panel)});
    }
  }
  return tasks > 1;
}

void MatrixProduct::multiply(const Chunk& chunk, const ProductJob& job, const uint8_t* activations) const {
  const PackedMatrix& matrix = *job.matrix;
  size_t row_bytes = prepared_row_bytes(matrix.activation_format(), matrix.columns());
  auto block_rows =
      static_cast<uint32_t>(std::max(kMinBlockRows, kRowBlockBytes / row_bytes) / kernels_.tile_rows) *
      kernels_.tile_rows;
  for (uint32_t row = 0; row < job.row_count; row += block_rows) {
    kernels_.multiply[static_cast<size_t>(matrix.panel_type())](
        {.panels = matrix.panels(),
         .panel_bytes = matrix.panel_bytes(),
         .first_panel = chunk.first_panel,
         .end_panel = chunk.end_panel,
         .output_rows = matrix.rows(),
         .columns = matrix.columns(),
         .group_columns = matrix.group_columns(),
         .activations = activations + row * row_bytes,
         .row_count = std::min(block_rows, job.row_count - row),
         .output = job.output + row * job.output_stride,
         .output_stride = job.output_stride});
  }
}

}  // namespace shoal::engine::cpu
