#include "formats/safetensors.h"

#include <algorithm>
#include <array>
#include <boost/json/basic_parser_impl.hpp>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <optional>

#include "base/assert.h"
#include "base/limits.h"
#include "formats/layout.h"

namespace shoal::formats {
namespace {

struct Dtype {
  std::string_view name;
  uint64_t bytes;
};
constexpr std::array kDtypes = std::to_array<Dtype>({{"BOOL", 1},
                                                     {"U8", 1},
                                                     {"I8", 1},
                                                     {"F8_E4M3", 1},
                                                     {"F8_E5M2", 1},
                                                     {"F8_E8M0", 1},
                                                     {"U16", 2},
                                                     {"I16", 2},
                                                     {"F16", 2},
                                                     {"BF16", 2},
                                                     {"U32", 4},
                                                     {"I32", 4},
                                                     {"F32", 4},
                                                     {"U64", 8},
                                                     {"I64", 8},
                                                     {"F64", 8}});

constexpr std::string_view kLeastTensorText = R"("a":{"dtype":"U8","shape":[],"data_offsets":[0,1]},)";

// Receives the header's JSON as events. The format is so narrow that the place in it is a depth and a field:
//   { "name": { "dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24] }, "__metadata__": { "key": "text" }
//   } 1         2                          3
// Every event returns whether to go on; the first fault is kept in `fault_`.
class HeaderHandler {
 public:
  static constexpr size_t max_object_size = limits::kMaxTensors;
  static constexpr size_t max_array_size = limits::kMaxSafetensorsDimensions;
  static constexpr size_t max_key_size = limits::kMaxTensorNameBytes;
  static constexpr size_t max_string_size = limits::kMaxSafetensorsHeaderBytes;
  using Text = std::string_view;
  using Code = boost::system::error_code;

  std::vector<SafetensorsTensor> tensors;

  const std::string& fault() const { return fault_; }
  ErrorCode fault_code() const { return fault_code_; }

  bool on_document_begin(Code&) { return true; }
  bool on_document_end(Code&) { return true; }

  bool on_object_begin(Code& code) {
    ++depth_;
    if (depth_ == 1) return true;
    if (depth_ > 2) return stop(code, "an object where a value was expected");
    in_metadata_ = key_ == "__metadata__";
    if (in_metadata_) return true;
    if (tensors.size() >= limits::kMaxTensors) return stop(code, "too many tensors");
    if (key_.empty()) return stop(code, "a tensor without a name");
    tensors.emplace_back().name = key_;
    has_dtype_ = has_shape_ = false;
    offsets_.clear();
    has_offsets_ = false;
    return true;
  }

  bool on_object_end(size_t, Code& code) {
    --depth_;
    if (depth_ != 1 || in_metadata_) return true;
    if (!has_dtype_) return stop(code, "no 'dtype'");
    if (!has_shape_) return stop(code, "no 'shape'");
    if (offsets_.size() != 2) return stop(code, "'data_offsets' must be two numbers");
    if (offsets_[0] > offsets_[1]) {
      return stop(code, fmt::format("'data_offsets' run backwards, from {} to {}", offsets_[0], offsets_[1]));
    }
    tensors.back().offset = offsets_[0];
    tensors.back().bytes = offsets_[1] - offsets_[0];
    return true;
  }

  bool on_array_begin(Code& code) {
    if (!in_tensor()) return stop(code, "a list where an object was expected");
    if (list_) return stop(code, "a list inside a list");
    if (key_ == "shape" && !has_shape_) {
      has_shape_ = true;
      list_ = &tensors.back().shape;
    } else if (key_ == "data_offsets" && !has_offsets_) {
      has_offsets_ = true;
      list_ = &offsets_;
    } else {
      return stop(code, fmt::format("unexpected list {}", quote(key_)));
    }
    return true;
  }
  bool on_array_end(size_t, Code&) {
    list_ = nullptr;
    return true;
  }

  bool on_key_part(Text part, size_t, Code&) {
    append(part);
    return true;
  }
  bool on_key(Text part, size_t, Code&) {
    append(part);
    key_ = std::exchange(text_, {});
    return true;
  }
  bool on_string_part(Text part, size_t, Code&) {
    if (!in_metadata_) append(part);
    return true;
  }
  bool on_string(Text part, size_t, Code& code) {
    if (depth_ == 2 && in_metadata_) return true;
    append(part);
    const std::string text = std::exchange(text_, {});
    if (!in_tensor() || list_ || key_ != "dtype" || has_dtype_) {
      return stop(code, fmt::format("unexpected text {}", quote(text)));
    }
    const auto* dtype = std::ranges::find(kDtypes, text, &Dtype::name);
    if (dtype == kDtypes.end())
      return stop(code, fmt::format("unknown dtype {}", quote(text)), ErrorCode::unsupported);
    has_dtype_ = true;
    tensors.back().dtype = dtype->name;
    return true;
  }

  bool on_number_part(Text, Code&) { return true; }
  bool on_int64(int64_t value, Text, Code& code) {
    if (value < 0) return stop(code, fmt::format("negative number {} in {}", value, quote(key_)));
    return on_natural(static_cast<uint64_t>(value), code);
  }
  bool on_uint64(uint64_t value, Text, Code& code) { return on_natural(value, code); }
  bool on_double(double value, Text, Code& code) {
    return stop(code, fmt::format("{} in {} is not an integer of 64 bits", value, quote(key_)));
  }
  bool on_bool(bool, Code& code) { return stop(code, fmt::format("unexpected boolean in {}", quote(key_))); }
  bool on_null(Code& code) { return stop(code, fmt::format("unexpected null in {}", quote(key_))); }
  bool on_comment_part(Text, Code&) { return true; }
  bool on_comment(Text, Code&) { return true; }

 private:
  bool in_tensor() const { return depth_ == 2 && !in_metadata_; }

  // Parts of a key or text that cannot be used are not worth keeping.
  void append(Text part) {
    if (text_.size() + part.size() <= limits::kMaxTensorNameBytes) text_.append(part);
  }

  bool on_natural(uint64_t value, Code& code) {
    if (!list_) return stop(code, fmt::format("unexpected number {} in {}", value, quote(key_)));
    list_->push_back(value);
    return true;
  }

  bool stop(Code& code, std::string fault, ErrorCode fault_code = ErrorCode::malformed) {
    fault_code_ = fault_code;
    fault_ = in_tensor() || depth_ == 1
                 ? fmt::format("{}: {}", quote(tensors.empty() ? "" : tensors.back().name), fault)
                 : std::move(fault);
    code = boost::system::errc::make_error_code(boost::system::errc::invalid_argument);
    return false;
  }

  int depth_ = 0;
  bool in_metadata_ = false;
  bool has_dtype_ = false;
  bool has_shape_ = false;
  bool has_offsets_ = false;
  std::string text_;                       // of the key or text being read
  std::string key_;                        // the last whole key
  std::vector<uint64_t>* list_ = nullptr;  // the list being read
  std::vector<uint64_t> offsets_;
  std::string fault_;
  ErrorCode fault_code_ = ErrorCode::malformed;
};

Result<std::vector<SafetensorsTensor>> parse_header(std::string_view header) {
  if (header.empty() || header.front() != '{')
    return fail(ErrorCode::malformed, "the header is not a JSON object");
  boost::json::parse_options options;
  options.max_depth = limits::kMaxSafetensorsHeaderDepth;
  boost::json::basic_parser<HeaderHandler> parser(options);
  // Growing would hold twice as much for a moment. Each tensor takes an opening brace and the least of its
  // text.
  const auto braces = static_cast<uint64_t>(std::ranges::count(header, '{'));
  parser.handler().tensors.reserve(
      std::min<uint64_t>({braces, header.size() / kLeastTensorText.size(), limits::kMaxTensors}));
  boost::system::error_code error;
  const size_t used = parser.write_some(false, header.data(), header.size(), error);
  const std::string& fault = parser.handler().fault();
  if (!fault.empty())
    return fail(parser.handler().fault_code(), fmt::format("safetensors header: {}", fault));
  if (error) {
    return fail(ErrorCode::malformed, fmt::format("the safetensors header is not valid JSON at byte {}: {}",
                                                  used, error.message()));
  }
  if (header.find_first_not_of(" \t\r\n", used) != std::string_view::npos) {
    return fail(ErrorCode::malformed,
                fmt::format("the safetensors header has more after its end at byte {}", used));
  }
  return std::move(parser.handler().tensors);
}

// Checks one tensor's numbers and makes its offset one from the start of the file.
Result<> place_tensor(SafetensorsTensor& tensor, uint64_t data_offset, uint64_t file_bytes) {
  const auto* dtype = std::ranges::find(kDtypes, tensor.dtype, &Dtype::name);
  SHOAL_ASSERT(dtype != kDtypes.end());
  SHOAL_TRY(const uint64_t values, count_values(tensor.shape));
  const auto expected = checked_multiply(values, dtype->bytes);
  if (!expected || *expected != tensor.bytes) {
    return fail(ErrorCode::malformed,
                fmt::format("shape [{}] of {} does not take the {} bytes of its data_offsets",
                            fmt::join(tensor.shape, ", "), dtype->name, tensor.bytes));
  }
  const auto begin = checked_add(data_offset, tensor.offset);
  const auto end = begin ? checked_add(*begin, tensor.bytes) : std::nullopt;
  if (!end || *end > file_bytes) {
    return fail(ErrorCode::malformed,
                fmt::format("{} bytes at offset {} of the data, past the end of the file ({} bytes)",
                            tensor.bytes, tensor.offset, file_bytes),
                "the file may be incomplete; fetch it again");
  }
  tensor.offset = *begin;
  return {};
}

}  // namespace

Result<std::vector<SafetensorsTensor>> parse_safetensors(ByteView file) {
  ByteReader reader(file);
  SHOAL_TRY(const uint64_t header_bytes, reader.read<uint64_t>());
  if (header_bytes > reader.remaining()) {
    return fail(ErrorCode::malformed, fmt::format("safetensors header of {} bytes, but only {} follow",
                                                  header_bytes, reader.remaining()));
  }
  if (header_bytes > limits::kMaxSafetensorsHeaderBytes) {
    return fail(ErrorCode::limit_exceeded, fmt::format("safetensors header of {} bytes, over the limit of {}",
                                                       header_bytes, limits::kMaxSafetensorsHeaderBytes));
  }
  SHOAL_TRY(const ByteView header, reader.take(header_bytes));
  SHOAL_TRY(auto tensors, parse_header(as_text(header)));
  std::vector<PlacedTensor> placed;
  placed.reserve(tensors.size());
  for (auto& tensor : tensors) {
    if (auto done = place_tensor(tensor, reader.offset(), file.size()); !done) {
      return fail_within(fmt::format("tensor {}", quote(tensor.name)), std::move(done).error());
    }
    placed.push_back({tensor.name, tensor.offset, tensor.bytes});
  }
  SHOAL_TRY_VOID(check_layout(std::move(placed)));
  return tensors;
}

Result<TensorType> tensor_type_from_dtype(std::string_view dtype) {
  if (dtype == "BF16") return TensorType::bf16;
  if (dtype == "F16") return TensorType::f16;
  if (dtype == "F32") return TensorType::f32;
  return fail(ErrorCode::unsupported, fmt::format("weights of type {} are not supported", quote(dtype)),
              "use a checkpoint in BF16, F16 or F32, one that is quantised as FP8 with blocks, MXFP4 or MLX, "
              "or a GGUF file");
}

}  // namespace shoal::formats
