#include "formats/join_parts.h"

#include <algorithm>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <numeric>
#include <span>

#include "base/bytes.h"
#include "formats/layout.h"

namespace shoal::formats {
namespace {

constexpr std::string_view kFp8Scales = "_scale_inv";
constexpr std::string_view kMxfp4Blocks = "_blocks";
constexpr std::string_view kMxfp4Scales = "_scales";
constexpr std::string_view kMlxWeight = ".weight";
constexpr std::string_view kMlxScales = ".scales";
constexpr std::string_view kMlxBiases = ".biases";
constexpr uint64_t kMxfp4Group = 32;
constexpr uint64_t kMxfp4BlockBytes = 16;

using Shape = std::vector<uint64_t>;

std::string describe(const SafetensorsTensor& tensor) {
  return fmt::format("{} ({} [{}])", quote(tensor.name), tensor.dtype, fmt::join(tensor.shape, ", "));
}

std::string_view without_suffix(std::string_view name, std::string_view suffix) {
  return name.substr(0, name.size() - suffix.size());
}

uint64_t divide_rounding_up(uint64_t value, uint64_t divisor) {
  return value / divisor + (value % divisor != 0 ? 1 : 0);
}

class Joiner {
 public:
  Joiner(std::vector<StoredTensor> stored, const Quantisation& quantisation)
      : stored_(std::move(stored)), quantisation_(quantisation), is_partner_(stored_.size()) {}

  Result<std::vector<TensorInfo>> join() {
    SHOAL_TRY_VOID(index_names());
    std::vector<TensorInfo> result;
    result.reserve(stored_.size());
    // Weights first: which tensors are partners is known only after all weights have named theirs.
    for (const auto& stored : stored_) {
      if (!is_packed(stored.tensor)) continue;
      auto weight = join_weight(stored);
      if (!weight) {
        return fail_within(fmt::format("tensor {}", describe(stored.tensor)), std::move(weight).error());
      }
      result.push_back(*std::move(weight));
    }
    for (uint32_t i = 0; i < stored_.size(); ++i) {
      if (is_partner_[i] || is_packed(stored_[i].tensor)) continue;
      SHOAL_TRY(TensorInfo plain, plain_tensor(stored_[i]));
      result.push_back(std::move(plain));
    }
    return result;
  }

 private:
  Result<> index_names() {
    by_name_.resize(stored_.size());
    std::iota(by_name_.begin(), by_name_.end(), 0u);
    const auto name_of = [this](uint32_t index) { return name_at(index); };
    std::ranges::sort(by_name_, {}, name_of);
    const auto twin = std::ranges::adjacent_find(by_name_, {}, name_of);
    if (twin == by_name_.end()) return {};
    return fail(ErrorCode::malformed, fmt::format("tensor {} is in two files", quote(name_at(*twin))));
  }

  std::string_view name_at(uint32_t index) const { return stored_[index].tensor.name; }

  // Whether the tensor is the packed part that gives a joined weight its place.
  bool is_packed(const SafetensorsTensor& tensor) const {
    switch (quantisation_.method) {
      case QuantisationMethod::none:
        return false;
      case QuantisationMethod::fp8:
        return tensor.dtype == "F8_E4M3";
      case QuantisationMethod::mxfp4:
        return tensor.dtype == "U8" && tensor.name.ends_with(kMxfp4Blocks);
      case QuantisationMethod::mlx:
        return tensor.dtype == "U32" && tensor.name.ends_with(kMlxWeight);
    }
    return false;
  }

  Result<TensorInfo> join_weight(const StoredTensor& packed) {
    switch (quantisation_.method) {
      case QuantisationMethod::fp8:
        return join_fp8(packed);
      case QuantisationMethod::mxfp4:
        return join_mxfp4(packed);
      default:
        return join_mlx(packed);
    }
  }

  Result<TensorInfo> join_fp8(const StoredTensor& packed) {
    const Shape& shape = packed.tensor.shape;
    if (shape.size() < 2) return fail(ErrorCode::unsupported, "FP8 weights must be matrices");
    Shape scales = shape;
    scales.back() = divide_rounding_up(shape.back(), quantisation_.block_columns);
    scales[shape.size() - 2] = divide_rounding_up(shape[shape.size() - 2], quantisation_.block_rows);
    TensorInfo weight = tensor_info(packed, packed.tensor.name, TensorType::f8_e4m3, shape);
    SHOAL_TRY(weight.scales,
              take_partner(packed.tensor.name + std::string(kFp8Scales), {"F32", "BF16"}, scales));
    weight.group_rows = quantisation_.block_rows;
    weight.group_columns = quantisation_.block_columns;
    return weight;
  }

  Result<TensorInfo> join_mxfp4(const StoredTensor& packed) {
    const std::string_view name = without_suffix(packed.tensor.name, kMxfp4Blocks);
    Shape shape = packed.tensor.shape;
    if (shape.size() < 3 || shape.back() != kMxfp4BlockBytes) {
      return fail(ErrorCode::malformed, "blocks of MXFP4 must have the shape [..., rows, columns / 32, 16]");
    }
    shape.pop_back();
    const Shape scales = shape;
    SHOAL_TRY(shape.back(), multiply(shape.back(), kMxfp4Group));
    TensorInfo weight = tensor_info(packed, name, TensorType::mxfp4_pairs, std::move(shape));
    SHOAL_TRY(weight.scales, take_partner(std::string(name) + std::string(kMxfp4Scales), {"U8"}, scales));
    weight.group_columns = kMxfp4Group;
    return weight;
  }

  Result<TensorInfo> join_mlx(const StoredTensor& packed) {
    const std::string module(without_suffix(packed.tensor.name, kMlxWeight));
    const MlxQuantisation& fields = quantisation_.of_module(module);
    SHOAL_TRY(const TensorType type, mlx_type(fields));
    Shape shape = packed.tensor.shape;
    if (shape.size() < 2) return fail(ErrorCode::malformed, "MLX packs matrices only");
    SHOAL_TRY(shape.back(), multiply(shape.back(), static_cast<uint64_t>(32 / fields.bits)));
    const auto group = static_cast<uint32_t>(fields.group_size);
    if (shape.back() % group != 0) {
      return fail(ErrorCode::malformed,
                  fmt::format("rows of {} values are not whole groups: 'group_size' of module {} is {}",
                              shape.back(), quote(module), group));
    }
    Shape scales = shape;
    scales.back() = shape.back() / group;
    TensorInfo weight = tensor_info(packed, packed.tensor.name, type, std::move(shape));
    weight.group_columns = group;
    if (type == TensorType::mxfp4_pairs) {
      SHOAL_TRY(weight.scales, take_partner(module + std::string(kMlxScales), {"U8"}, scales));
      return weight;
    }
    SHOAL_TRY(weight.scales, take_partner(module + std::string(kMlxScales), {"F16", "BF16", "F32"}, scales));
    const std::string_view dtype = to_string(weight.scales->type);
    SHOAL_TRY(weight.biases, take_partner(module + std::string(kMlxBiases), {&dtype, 1}, scales));
    return weight;
  }

  static Result<TensorType> mlx_type(const MlxQuantisation& fields) {
    if (!fields.enabled)
      return fail(ErrorCode::malformed, "config.json says that this module is not quantised");
    const auto refuse = [](std::string_view field, auto value, std::string_view known) {
      return fail(ErrorCode::unsupported,
                  fmt::format("'{}' of its quantisation in config.json is {}, only {} are supported", field,
                              value, known),
                  "quantise the model again with mlx_lm.convert, to 4 or 8 bits");
    };
    if (fields.mode == "mxfp4") {
      if (fields.bits != 4) return refuse("bits", fields.bits, "4 of mode 'mxfp4'");
      if (fields.group_size != kMxfp4Group)
        return refuse("group_size", fields.group_size, "32 of mode 'mxfp4'");
      return TensorType::mxfp4_pairs;
    }
    if (fields.mode != "affine") return refuse("mode", quote(fields.mode), "'affine' and 'mxfp4'");
    if (fields.bits != 4 && fields.bits != 8) return refuse("bits", fields.bits, "4 and 8");
    if (fields.group_size != 32 && fields.group_size != 64 && fields.group_size != 128) {
      return refuse("group_size", fields.group_size, "32, 64 and 128");
    }
    return fields.bits == 4 ? TensorType::affine4 : TensorType::affine8;
  }

  // The tensor `name` as scales or biases, of one of these dtypes and exactly this shape.
  Result<std::shared_ptr<const TensorInfo>> take_partner(const std::string& name,
                                                         std::span<const std::string_view> dtypes,
                                                         const Shape& shape) {
    const auto place = std::ranges::lower_bound(by_name_, std::string_view(name), {},
                                                [this](uint32_t index) { return name_at(index); });
    if (place == by_name_.end() || name_at(*place) != name)
      return fail(ErrorCode::malformed, fmt::format("its partner {} is missing", quote(name)));
    const StoredTensor& partner = stored_[*place];
    if (std::ranges::find(dtypes, partner.tensor.dtype) == dtypes.end() || partner.tensor.shape != shape) {
      return fail(ErrorCode::malformed,
                  fmt::format("its partner {} must be {} [{}]", describe(partner.tensor),
                              fmt::join(dtypes, " or "), fmt::join(shape, ", ")));
    }
    is_partner_[*place] = true;
    const auto type = partner.tensor.dtype == "U8" ? Result<TensorType>(TensorType::e8m0)
                                                   : tensor_type_from_dtype(partner.tensor.dtype);
    if (!type) return std::unexpected(type.error());
    return std::make_shared<const TensorInfo>(tensor_info(partner, name, *type, shape));
  }
  Result<std::shared_ptr<const TensorInfo>> take_partner(const std::string& name,
                                                         std::initializer_list<std::string_view> dtypes,
                                                         const Shape& shape) {
    return take_partner(name, std::span(dtypes.begin(), dtypes.size()), shape);
  }

  Result<TensorInfo> plain_tensor(StoredTensor& tensor) const {
    const std::string_view name = tensor.tensor.name;
    if (is_lonely_partner(name)) {
      return fail(ErrorCode::malformed, fmt::format("tensor {} scales quantised weights that are not there",
                                                    describe(tensor.tensor)));
    }
    const auto type = tensor_type_from_dtype(tensor.tensor.dtype);
    if (!type) return fail_within(fmt::format("tensor {}", quote(name)), type.error());
    return tensor_info(tensor, name, *type, std::move(tensor.tensor.shape));
  }

  bool is_lonely_partner(std::string_view name) const {
    switch (quantisation_.method) {
      case QuantisationMethod::none:
        return false;
      case QuantisationMethod::fp8:
        return name.ends_with(kFp8Scales);
      case QuantisationMethod::mxfp4:
        return name.ends_with(kMxfp4Scales);
      case QuantisationMethod::mlx:
        return name.ends_with(kMlxScales) || name.ends_with(kMlxBiases);
    }
    return false;
  }

  static TensorInfo tensor_info(const StoredTensor& stored, std::string_view name, TensorType type,
                                Shape shape) {
    return {.name = std::string(name),
            .type = type,
            .shape = std::move(shape),
            .file = stored.file,
            .offset = stored.tensor.offset,
            .bytes = stored.tensor.bytes};
  }

  static Result<uint64_t> multiply(uint64_t count, uint64_t factor) {
    const auto product = checked_multiply(count, factor);
    if (!product) return fail(ErrorCode::malformed, "its rows have more values than 64 bits count");
    return *product;
  }

  std::vector<StoredTensor> stored_;
  const Quantisation& quantisation_;
  std::vector<uint32_t> by_name_;  // into stored_, sorted by name
  std::vector<bool> is_partner_;
};

}  // namespace

Result<std::vector<TensorInfo>> join_parts(std::vector<StoredTensor> stored,
                                           const Quantisation& quantisation) {
  return Joiner(std::move(stored), quantisation).join();
}

}  // namespace shoal::formats
