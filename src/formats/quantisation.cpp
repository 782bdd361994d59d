#include "formats/quantisation.h"

#include <fmt/format.h>

#include "base/limits.h"
#include "formats/layout.h"

namespace shoal::formats {
namespace {

constexpr std::string_view kHint =
    "use a checkpoint in BF16, FP8 with blocks, MXFP4 or MLX 4-bit or 8-bit, or a GGUF file";

Result<Quantisation> read_fp8(const JsonObject& fields) {
  SHOAL_TRY(const auto format, get_string(fields, "fmt"));
  if (format.value_or("e4m3") != "e4m3") {
    return fail(ErrorCode::unsupported, fmt::format("'fmt' is {}, only 'e4m3' is supported", quote(*format)),
                std::string(kHint));
  }
  SHOAL_TRY(const JsonArray* size, get_array(fields, "weight_block_size"));
  if (!size) {
    return fail(ErrorCode::unsupported, "'quant_method' is 'fp8' without 'weight_block_size'",
                std::string(kHint));
  }
  Quantisation result;
  result.method = QuantisationMethod::fp8;
  uint32_t* const sides[] = {&result.block_rows, &result.block_columns};
  if (size->size() != std::size(sides)) {
    return fail(ErrorCode::malformed,
                fmt::format("'weight_block_size' has {} numbers, must have 2", size->size()));
  }
  for (size_t i = 0; i < std::size(sides); ++i) {
    const Json& side = (*size)[i];
    const int64_t number = side.is_int64() ? side.get_int64() : 0;
    if (number < 1 || number > static_cast<int64_t>(limits::kMaxWidth)) {
      return fail(ErrorCode::malformed,
                  fmt::format("'weight_block_size' must be two integers from 1 to {}", limits::kMaxWidth));
    }
    *sides[i] = static_cast<uint32_t>(number);
  }
  return result;
}

// MLX's own defaults where a field is missing; a module's entry does not inherit the common one.
Result<MlxQuantisation> read_mlx_fields(const JsonObject& fields) {
  MlxQuantisation result;
  SHOAL_TRY(auto mode, get_string(fields, "mode"));
  if (mode) result.mode = *std::move(mode);
  SHOAL_TRY(const auto bits, get_integer(fields, "bits", 1, 64));
  SHOAL_TRY(const auto group_size, get_integer(fields, "group_size", 1, limits::kMaxWidth));
  result.bits = bits.value_or(4);
  result.group_size = group_size.value_or(result.mode == "affine" ? 64 : 32);
  return result;
}

// Besides the common fields, members that are objects or booleans are modules; whatever else is there is of
// no concern to loading.
Result<Quantisation> read_mlx(const JsonObject& fields) {
  Quantisation result;
  result.method = QuantisationMethod::mlx;
  SHOAL_TRY(result.common, read_mlx_fields(fields));
  for (const auto& [key, value] : fields) {
    if (value.is_bool()) {
      auto& module = result.modules[key];
      module = result.common;
      module.enabled = value.get_bool();
    } else if (value.is_object()) {
      auto module = read_mlx_fields(value.get_object());
      if (!module) return fail_within(fmt::format("module {}", quote(key)), std::move(module).error());
      result.modules[key] = *std::move(module);
    }
  }
  return result;
}

Result<Quantisation> read_method(const JsonObject& fields) {
  SHOAL_TRY(const auto method, get_string(fields, "quant_method"));
  if (!method && fields.contains("bits") && fields.contains("group_size")) return read_mlx(fields);
  if (!method) return fail(ErrorCode::unsupported, "no 'quant_method'", std::string(kHint));
  if (*method == "fp8") return read_fp8(fields);
  if (*method == "mxfp4") {
    Quantisation result;
    result.method = QuantisationMethod::mxfp4;
    return result;
  }
  return fail(ErrorCode::unsupported, fmt::format("'quant_method' {} is not supported", quote(*method)),
              std::string(kHint));
}

}  // namespace

const MlxQuantisation& Quantisation::of_module(std::string_view path) const {
  const auto place = modules.find(path);
  return place == modules.end() ? common : place->second;
}

Result<Quantisation> read_quantisation(const JsonObject& config) {
  const JsonObject* place = &config;
  const auto stated = [](const JsonObject& object) {
    return find(object, "quantization") || find(object, "quantization_config");
  };
  if (!stated(config)) {
    const Json* text_config = find(config, "text_config");
    if (!text_config || !text_config->is_object() || !stated(text_config->get_object()))
      return Quantisation{};
    place = &text_config->get_object();
  }
  // MLX writes both, the same; converting may leave the original's `quantization_config` beside its own.
  const std::string_view key = find(*place, "quantization") ? "quantization" : "quantization_config";
  const auto read = [&]() -> Result<Quantisation> {
    SHOAL_TRY(const JsonObject* fields, get_object(*place, key));
    return read_method(*fields);
  };
  auto result = read();
  if (!result && result.error().code == ErrorCode::invalid_argument)
    result.error().code = ErrorCode::malformed;
  if (!result) return fail_within(fmt::format("config.json: '{}'", key), std::move(result).error());
  return result;
}

}  // namespace shoal::formats
