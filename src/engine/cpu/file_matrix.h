// One matrix in a file's form: where its bytes and the scales beside them lie, and which rows and columns of
// it are wanted. What packed_matrix.h packs. A view: the Checkpoint must outlive it.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "engine/source.h"
#include "formats/checkpoint.h"
#include "formats/tensor_rows.h"
#include "formats/tensor_type.h"

namespace shoal::engine::cpu {

class ThreadPool;

// A rank's share of the wanted matrix.
struct MatrixShare {
  uint32_t first_row = 0;
  uint32_t rows = 0;
  uint32_t first_column = 0;
  uint32_t columns = 0;
};

struct FileMatrix {
  formats::TensorType type = formats::TensorType::f32;
  uint32_t file_rows = 0;     // of `weights`
  uint32_t file_columns = 0;  // in values; whole blocks
  ByteView weights = {};
  // Of types whose scales are tensors of their own, see TensorInfo.
  ByteView scales = {};
  ByteView biases = {};
  formats::TensorType scale_type = formats::TensorType::f32;
  uint32_t group_rows = 1;
  uint32_t group_columns = 0;
  // The tensor that it is part of, whose rows from `first_tensor_row` on it is; for read_row() alone.
  const formats::TensorInfo* tensor = nullptr;
  formats::TensorBytes tensor_bytes = {};
  uint64_t first_tensor_row = 0;
  // What is wanted of it: the chosen rows and columns, then transposed.
  Runs chosen_rows = {};
  Runs chosen_columns = {};
  bool transposed = false;
  bool exact = false;  // wanted as f32 if it is quantised

  // The matrix that `source` means. Errors: unsupported (neither a matrix nor a stack of them, a size that
  // shoal does not run, a choice that does not lie in the tensor).
  static Result<FileMatrix> of(const formats::Checkpoint& checkpoint, const MatrixSource& source);

  // Of the wanted matrix.
  uint32_t rows() const { return transposed ? chosen_column_count() : chosen_row_count(); }
  uint32_t columns() const { return transposed ? chosen_row_count() : chosen_column_count(); }

  size_t row_bytes() const;        // of `weights`
  size_t scale_row_bytes() const;  // of `scales` and of `biases`
  // The scale at `row` and `column` of the file, as bytes of `scales` or `biases`.
  size_t scale_offset(uint32_t row, uint32_t column) const;

  // Whether a share can be packed in the file's own type: its columns are whole blocks and groups that lie
  // together in the file, row by row, and it need not be exact.
  bool keeps_type(const MatrixShare& share) const;
  // The share with each weight as f32, for a matrix that does not keep its type. `memory` holds the
  // values. Error: malformed (a weight that is not a number).
  Result<FileMatrix> widened(const MatrixShare& share, ThreadPool& pool, std::vector<float>& memory) const;

 private:
  uint32_t chosen_row_count() const { return chosen_rows.size(file_rows); }
  uint32_t chosen_column_count() const { return chosen_columns.size(file_columns); }
};

// The exact values of one row of the file: all its columns.
void read_row(const FileMatrix& matrix, uint32_t row, std::span<float> values);

}  // namespace shoal::engine::cpu
