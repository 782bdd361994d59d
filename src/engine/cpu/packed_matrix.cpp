#include "engine/cpu/packed_matrix.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <fmt/format.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "engine/cpu/packing.h"
#include "engine/cpu/panel_layout.h"
#include "engine/cpu/thread_pool.h"

namespace shoal::engine::cpu {
namespace {

using formats::TensorType;

// Packed at once, before the file's pages are given back.
constexpr size_t kRoundBytes = 256 << 20;
constexpr size_t kAlignment = 64;

const uint8_t* data_of(ByteView bytes) {
  return reinterpret_cast<const uint8_t*>(bytes.data());
}

// Where a share lies in the file, and one matrix to write it to.
struct PanelJob {
  FileMatrix file;
  MatrixShare share;
  PanelType type;
  uint32_t group_columns;
  size_t panel_bytes;
  uint8_t* panels;
  std::vector<float> widened;  // what `file` then views
};

// Blocks that lie in the file as they are wanted.
bool pack_rows(const PanelJob& job, uint32_t panel) {
  const FileMatrix& file = job.file;
  const formats::TensorTypeInfo& info = formats::type_info(file.type);
  const uint32_t first_row = panel * kPanelRows, count = std::min(kPanelRows, job.share.rows - first_row);
  const uint32_t first_column = file.chosen_columns.first + job.share.first_column;
  const uint32_t step = strip_columns_of(job.type, job.group_columns);
  uint8_t* to = job.panels + panel * job.panel_bytes;
  bool good = true;
  // In strips, so that the sixteen rows meet in the first-level cache.
  for (uint32_t column = 0; column < job.share.columns; column += step) {
    uint8_t* part = to + panel_bytes_of(job.type, column, job.group_columns);
    for (uint32_t lane = 0; lane < count; ++lane) {
      const uint32_t row = file.chosen_rows.at(job.share.first_row + first_row + lane);
      const size_t offset =
          row * file.row_bytes() + size_t{first_column + column} / info.block_values * info.block_bytes;
      const size_t scale = file.scale_offset(row, first_column + column);
      good &= pack_strip(file.type, part, lane,
                         {.weights = data_of(file.weights) + offset,
                          .scales = file.scales.empty() ? nullptr : data_of(file.scales) + scale,
                          .biases = file.biases.empty() ? nullptr : data_of(file.biases) + scale,
                          .scale_type = file.scale_type,
                          .columns = std::min(step, job.share.columns - column),
                          .group_columns = job.group_columns});
    }
  }
  pad_panel(job.type, to, count, job.share.columns);
  return good;
}

// Plain values from wherever they are.
template <class Value>
void gather_values(const PanelJob& job, uint32_t panel) {
  const FileMatrix& file = job.file;
  const uint32_t first = job.share.first_row + panel * kPanelRows;
  const uint32_t count = std::min(kPanelRows, job.share.rows - panel * kPanelRows);
  const auto* values = data_of(file.weights);
  uint8_t* to = job.panels + panel * job.panel_bytes;
  std::array<size_t, kPanelRows> lanes = {};  // where each lane's row begins, or its column if transposed
  for (uint32_t lane = 0; lane < count; ++lane) {
    lanes[lane] = file.transposed ? file.chosen_columns.at(first + lane)
                                  : size_t{file.chosen_rows.at(first + lane)} * file.file_columns;
  }
  for (uint32_t k = 0; k < job.share.columns; ++k, to += kPanelRows * sizeof(Value)) {
    const uint32_t at = job.share.first_column + k;
    const size_t offset =
        file.transposed ? size_t{file.chosen_rows.at(at)} * file.file_columns : file.chosen_columns.at(at);
    for (uint32_t lane = 0; lane < count; ++lane) {
      std::memcpy(to + lane * sizeof(Value), values + (lanes[lane] + offset) * sizeof(Value), sizeof(Value));
    }
  }
}

bool is_scattered(const FileMatrix& file) {
  const Runs& columns = file.chosen_columns;
  return file.transposed || (columns.length != 0 && columns.count > 1 && columns.stride != columns.length);
}

bool pack_panel(const PanelJob& job, uint32_t panel) {
  if (!is_scattered(job.file)) return pack_rows(job, panel);
  if (job.file.type == TensorType::f32) {
    gather_values<uint32_t>(job, panel);
  } else {
    gather_values<uint16_t>(job, panel);
  }
  return true;
}

// Writes the panels of `jobs`, whose matrices have one shape.
Result<> run_jobs(std::span<PanelJob> jobs, uint32_t panel_count, ThreadPool& pool) {
  for (PanelJob& job : jobs) {
    if (job.file.keeps_type(job.share)) continue;
    SHOAL_TRY(job.file, job.file.widened(job.share, pool, job.widened));
    job.share.first_row = job.share.first_column = 0;
  }
  std::atomic<bool> good = true;
  pool.run(static_cast<uint32_t>(jobs.size()) * panel_count, [&](uint32_t task, unsigned) {
    if (!pack_panel(jobs[task / panel_count], task % panel_count)) good = false;
  });
  if (!good) return fail(ErrorCode::malformed, "a weight or its scale is not a number");
  return {};
}

}  // namespace

Result<PackedMatrix> PackedMatrix::shape(const FileMatrix& file, const MatrixShare& share) {
  PackedMatrix matrix;
  const bool whole = file.keeps_type(share);
  const TensorType type = whole ? file.type : TensorType::f32;
  matrix.type_ = panel_type_of(type, file.scale_type);
  matrix.rows_ = share.rows;
  matrix.columns_ = share.columns;
  matrix.group_columns_ = panel_group_of(type, file.group_columns, share.columns);
  if (matrix.activation_format() != ActivationFormat::f32 && share.columns % 32 != 0) {
    return fail(ErrorCode::unsupported, fmt::format("{} columns of {} are not whole blocks of 32",
                                                    share.columns, formats::to_string(type)));
  }
  matrix.panel_bytes_ = panel_bytes_of(matrix.type_, share.columns, matrix.group_columns_);
  return matrix;
}

Result<PackedMatrix> PackedMatrix::pack(const FileMatrix& matrix, const MatrixShare& share,
                                        ThreadPool& pool) {
  SHOAL_TRY(std::vector<PackedMatrix> packed, pack_stack({&matrix, 1}, share, pool, {}));
  return std::move(packed.front());
}

Result<std::vector<PackedMatrix>> PackedMatrix::pack_stack(
    std::span<const FileMatrix> files, const MatrixShare& share, ThreadPool& pool,
    const std::function<void(size_t first, size_t end)>& packed) {
  std::vector<PackedMatrix> matrices;
  size_t total = 0;
  for (const FileMatrix& file : files) {
    SHOAL_ASSERT(uint64_t{share.first_row} + share.rows <= file.rows() &&
                 uint64_t{share.first_column} + share.columns <= file.columns());
    SHOAL_TRY(PackedMatrix matrix, shape(file, share));
    auto bytes = checked_multiply<size_t>(matrix.panel_count(), matrix.panel_bytes_);
    auto next =
        bytes ? checked_add(total, (*bytes + kAlignment - 1) / kAlignment * kAlignment) : std::nullopt;
    if (!next) return fail(ErrorCode::out_of_memory, "packed matrices are larger than memory can be");
    total = *next;
    matrices.push_back(std::move(matrix));
  }
  SHOAL_TRY(HugeBuffer buffer, HugeBuffer::allocate(total, "weights"));
  auto storage = std::make_shared<HugeBuffer>(std::move(buffer));
  auto* to = reinterpret_cast<uint8_t*>(storage->data());
  for (PackedMatrix& matrix : matrices) {
    matrix.storage_ = storage;
    matrix.panels_ = to;
    to += (matrix.bytes() + kAlignment - 1) / kAlignment * kAlignment;
  }
  for (size_t first = 0, end = 0; first < files.size(); first = end) {
    std::vector<PanelJob> jobs;
    for (size_t bytes = 0; end < files.size() && bytes < kRoundBytes; ++end) {
      const PackedMatrix& matrix = matrices[end];
      jobs.push_back(
          {files[end], share, matrix.type_, matrix.group_columns_, matrix.panel_bytes_, matrix.panels_, {}});
      bytes += matrix.bytes();
    }
    SHOAL_TRY_VOID(run_jobs(jobs, matrices.front().panel_count(), pool));
    if (packed) packed(first, end);
  }
  return matrices;
}

ActivationFormat PackedMatrix::activation_format() const {
  return activation_format_of(type_);
}

}  // namespace shoal::engine::cpu
