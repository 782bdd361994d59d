// Turns the TensorRefs of a spec into an engine's weights. The refs were checked against the checkpoint by
// read_decoder_spec; what is missing here is an Error all the same.
#pragma once

#include <array>
#include <fmt/format.h>
#include <optional>
#include <span>
#include <vector>

#include "base/result.h"
#include "engine/backend.h"
#include "formats/checkpoint.h"
#include "model/decoder_spec.h"

namespace shoal::model {

template <engine::Backend B>
class Loader {
 public:
  using Weight = typename B::Weight;

  Loader(B& backend, const formats::Checkpoint& checkpoint) : backend_(backend), checkpoint_(checkpoint) {}

  Result<> matrix(const TensorRef& ref, Weight& weight) const {
    SHOAL_TRY(engine::MatrixSource source, matrix_source(ref));
    formats::TensorInfo row = *source.tensor;
    if (row.shape.size() == 1) {  // some files hold a matrix of one row as a vector
      row.shape.insert(row.shape.begin(), 1);
      source.tensor = &row;
    }
    SHOAL_TRY(weight, backend_.load_matrix(checkpoint_, source));
    return {};
  }

  Result<> matrix(const TensorRef& ref, std::optional<Weight>& weight) const {
    return ref.empty() ? Result<>() : matrix(ref, weight.emplace());
  }

  // A matrix whose rounding errors would exchange experts.
  Result<> exact_matrix(const TensorRef& ref, Weight& weight) const {
    SHOAL_TRY(engine::MatrixSource source, matrix_source(ref));
    source.exact = true;
    SHOAL_TRY(weight, backend_.load_matrix(checkpoint_, source));
    return {};
  }

  Result<> stack(std::span<const TensorRef> refs, Weight& weight) const {
    std::vector<engine::MatrixSource> sources;
    sources.reserve(refs.size());
    for (const TensorRef& ref : refs) {
      SHOAL_TRY(sources.emplace_back(), matrix_source(ref));
    }
    SHOAL_TRY(weight, backend_.load_stack(checkpoint_, sources));
    return {};
  }

  Result<> vector(const TensorRef& ref, engine::VectorMap map, Weight& weight) const {
    return vectors(std::span(&ref, 1), map, weight);
  }

  Result<> vector(const TensorRef& ref, engine::VectorMap map, std::optional<Weight>& weight) const {
    return ref.empty() ? Result<>() : vector(ref, map, weight.emplace());
  }

  // One after the other as one vector.
  Result<> vectors(std::span<const TensorRef> refs, engine::VectorMap map, Weight& weight) const {
    std::vector<engine::VectorSource> sources;
    sources.reserve(refs.size());
    for (const TensorRef& ref : refs) {
      SHOAL_TRY(const formats::TensorInfo* info, find(ref));
      sources.push_back(
          {.tensor = info, .index = ref.index, .values = ref.rows, .map = map, .part = ref.part_rows});
    }
    SHOAL_TRY(weight, backend_.load_vector(checkpoint_, sources));
    return {};
  }

  Result<> vectors(std::span<const TensorRef> refs, std::optional<Weight>& weight) const {
    return refs.empty() ? Result<>() : vectors(refs, engine::VectorMap::none, weight.emplace());
  }

  Result<> embedding(const TensorRef& ref, Weight& weight) const {
    SHOAL_TRY(const formats::TensorInfo* info, find(ref));
    SHOAL_TRY(weight, backend_.load_embedding(checkpoint_, *info));
    return {};
  }

 private:
  Result<const formats::TensorInfo*> find(const TensorRef& ref) const {
    const formats::TensorInfo* info = checkpoint_.find(ref.name);
    if (info == nullptr) return fail(ErrorCode::malformed, fmt::format("tensor '{}' is missing", ref.name));
    return info;
  }

  Result<engine::MatrixSource> matrix_source(const TensorRef& ref) const {
    SHOAL_TRY(const formats::TensorInfo* info, find(ref));
    return engine::MatrixSource{.tensor = info,
                                .index = ref.index.value_or(0),
                                .rows = ref.rows,
                                .columns = ref.columns,
                                .transposed = ref.transposed,
                                .part_rows = ref.part_rows,
                                .part_columns = ref.part_columns};
  }

  B& backend_;
  const formats::Checkpoint& checkpoint_;
};

}  // namespace shoal::model
