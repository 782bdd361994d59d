#include "formats/gguf.h"

#include <algorithm>
#include <array>
#include <bit>
#include <fmt/format.h>

#include "base/limits.h"
#include "formats/layout.h"

namespace shoal::formats {
namespace {

constexpr uint32_t kMagic = 0x46554747;  // "GGUF"
constexpr uint64_t kDefaultAlignment = 32;

// Value types of the format, by number.
enum class ValueType : uint32_t { u8, i8, u16, i16, u32, i32, f32, boolean, string, array, u64, i64, f64 };
// The least an element takes in the file: a string is at least its length field.
constexpr std::array<uint64_t, 13> kLeastBytes = {1, 1, 2, 2, 4, 4, 4, 1, 8, 12, 8, 8, 8};

// Smallest table entries, for refusing an announced count before believing it.
constexpr uint64_t kLeastPairBytes = 8 + 1 + 4 + 1;  // key length, key, type, value
constexpr uint64_t kLeastTensorBytes =
    8 + 1 + 4 + 8 + 4 + 8;  // name length, name, dimensions, one of them, type, offset

class HeaderParser {
 public:
  explicit HeaderParser(ByteView file)
      : file_bytes_(file.size()),
        reader_(file.first(std::min<uint64_t>(file.size(), limits::kMaxHeaderBytes))) {}

  Result<GgufHeader> parse() {
    SHOAL_TRY_VOID(read_preamble());
    for (uint64_t i = 0; i < pair_count_; ++i) {
      if (auto done = read_pair(); !done)
        return fail_within(fmt::format("metadata pair {}", i), std::move(done).error());
    }
    SHOAL_TRY_VOID(read_alignment());
    header_.tensors.reserve(tensor_count_);
    for (uint64_t i = 0; i < tensor_count_; ++i) {
      if (auto done = read_tensor(); !done)
        return fail_within(fmt::format("tensor {}", i), std::move(done).error());
    }
    SHOAL_TRY_VOID(place_tensors());
    return std::move(header_);
  }

 private:
  Result<> read_preamble() {
    SHOAL_TRY(const uint32_t magic, reader_.read<uint32_t>());
    if (magic != kMagic) {
      return fail(ErrorCode::malformed, fmt::format("not a GGUF file: it begins with {:#010x}", magic));
    }
    SHOAL_TRY(header_.version, reader_.read<uint32_t>());
    if (header_.version == std::byteswap(2u) || header_.version == std::byteswap(3u)) {
      return fail(ErrorCode::unsupported, "GGUF file of a big-endian machine");
    }
    if (header_.version != 2 && header_.version != 3) {
      return fail(ErrorCode::unsupported,
                  fmt::format("GGUF version {}, only 2 and 3 are known", header_.version));
    }
    SHOAL_TRY(tensor_count_, read_count("tensors", limits::kMaxTensors, kLeastTensorBytes));
    SHOAL_TRY(pair_count_, read_count("metadata pairs", limits::kMaxMetadataPairs, kLeastPairBytes));
    return {};
  }

  // A count that the rest of the file can hold.
  Result<uint64_t> read_count(std::string_view what, uint64_t limit, uint64_t least_bytes) {
    SHOAL_TRY(const uint64_t count, reader_.read<uint64_t>());
    if (count > limit) {
      return fail(ErrorCode::limit_exceeded,
                  fmt::format("{} {} announced, over the limit of {}", count, what, limit));
    }
    if (count > reader_.remaining() / least_bytes) {
      return fail(ErrorCode::malformed,
                  fmt::format("{} {} announced with only {} bytes left", count, what, reader_.remaining()));
    }
    return count;
  }

  Result<std::string> read_string(uint64_t limit) {
    SHOAL_TRY(const uint64_t length, reader_.read<uint64_t>());
    if (length > limit) {
      return fail(ErrorCode::malformed,
                  fmt::format("string of {} bytes at offset {}, at most {} are possible", length,
                              reader_.offset(), limit));
    }
    SHOAL_TRY(const ByteView raw, reader_.take(length));
    return std::string(as_text(raw));
  }

  Result<> read_pair() {
    SHOAL_TRY(std::string key, read_string(limits::kMaxMetadataKeyBytes));
    auto value = read_value();
    if (!value) return fail_within(quote(key), std::move(value).error());
    auto [place, is_new] = header_.metadata.values_.try_emplace(std::move(key), *std::move(value));
    if (!is_new) return fail(ErrorCode::malformed, fmt::format("key {} appears twice", quote(place->first)));
    return {};
  }

  Result<ValueType> read_type() {
    SHOAL_TRY(const uint32_t number, reader_.read<uint32_t>());
    if (number >= kLeastBytes.size())
      return fail(ErrorCode::malformed, fmt::format("unknown value type {}", number));
    return static_cast<ValueType>(number);
  }

  Result<GgufValue> read_value() {
    SHOAL_TRY(const ValueType type, read_type());
    switch (type) {
      case ValueType::u8:
        return read_scalar<uint8_t, uint64_t>();
      case ValueType::u16:
        return read_scalar<uint16_t, uint64_t>();
      case ValueType::u32:
        return read_scalar<uint32_t, uint64_t>();
      case ValueType::u64:
        return read_scalar<uint64_t, uint64_t>();
      case ValueType::i8:
        return read_scalar<int8_t, int64_t>();
      case ValueType::i16:
        return read_scalar<int16_t, int64_t>();
      case ValueType::i32:
        return read_scalar<int32_t, int64_t>();
      case ValueType::i64:
        return read_scalar<int64_t, int64_t>();
      case ValueType::f32:
        return read_scalar<float, double>();
      case ValueType::f64:
        return read_scalar<double, double>();
      case ValueType::boolean:
        return read_bool();
      case ValueType::string:
        return read_string(reader_.remaining());
      case ValueType::array:
        return read_array();
    }
    return fail(ErrorCode::malformed, "unknown value type");
  }

  template <class Stored, class Wide>
  Result<GgufValue> read_scalar() {
    SHOAL_TRY(const Stored value, reader_.read<Stored>());
    return GgufValue(static_cast<Wide>(value));
  }

  Result<bool> read_bool() {
    SHOAL_TRY(const uint8_t value, reader_.read<uint8_t>());
    if (value > 1) return fail(ErrorCode::malformed, fmt::format("boolean with the value {}", value));
    return value == 1;
  }

  Result<GgufValue> read_array() {
    SHOAL_TRY(const ValueType type, read_type());
    if (type == ValueType::array) return fail(ErrorCode::unsupported, "array of arrays");
    const uint64_t weight =
        type == ValueType::string ? 2 : 1;  // in memory, a text is much larger than a number
    SHOAL_TRY(const uint64_t count,
              read_count("array elements", elements_left_ / weight, kLeastBytes[static_cast<size_t>(type)]));
    elements_left_ -= count * weight;
    switch (type) {
      case ValueType::u8:
        return read_numbers<uint8_t, uint64_t>(count);
      case ValueType::u16:
        return read_numbers<uint16_t, uint64_t>(count);
      case ValueType::u32:
        return read_numbers<uint32_t, uint64_t>(count);
      case ValueType::u64:
        return read_numbers<uint64_t, uint64_t>(count);
      case ValueType::i8:
        return read_numbers<int8_t, int64_t>(count);
      case ValueType::i16:
        return read_numbers<int16_t, int64_t>(count);
      case ValueType::i32:
        return read_numbers<int32_t, int64_t>(count);
      case ValueType::i64:
        return read_numbers<int64_t, int64_t>(count);
      case ValueType::f32:
        return read_numbers<float, double>(count);
      case ValueType::f64:
        return read_numbers<double, double>(count);
      case ValueType::boolean:
        return read_elements<bool>(count, [&] { return read_bool(); });
      default:
        return read_elements<std::string>(count, [&] { return read_string(reader_.remaining()); });
    }
  }

  template <class Stored, class Wide>
  Result<GgufValue> read_numbers(uint64_t count) {
    return read_elements<Wide>(count, [&] { return reader_.read<Stored>(); });
  }

  template <class Element, class Read>
  Result<GgufValue> read_elements(uint64_t count, Read read) {
    std::vector<Element> elements;
    elements.reserve(count);
    for (uint64_t i = 0; i < count; ++i) {
      SHOAL_TRY(auto element, read());
      elements.push_back(static_cast<Element>(std::move(element)));
    }
    return GgufValue(std::move(elements));
  }

  Result<> read_alignment() {
    SHOAL_TRY(const auto stated, header_.metadata.get_integer("general.alignment", 0, INT64_MAX));
    alignment_ = stated ? static_cast<uint64_t>(*stated) : kDefaultAlignment;
    if (!std::has_single_bit(alignment_) || alignment_ % 8 != 0) {
      return fail(ErrorCode::malformed,
                  fmt::format("'general.alignment' is {}, but must be a power of two from 8 up", alignment_));
    }
    return {};
  }

  Result<> read_tensor() {
    GgufTensor tensor;
    SHOAL_TRY(tensor.name, read_string(limits::kMaxTensorNameBytes));
    if (tensor.name.empty()) return fail(ErrorCode::malformed, "empty name");
    if (auto done = read_tensor_fields(tensor); !done)
      return fail_within(quote(tensor.name), std::move(done).error());
    header_.tensors.push_back(std::move(tensor));
    return {};
  }

  // Leaves `offset` as in the file: from the start of the data.
  Result<> read_tensor_fields(GgufTensor& tensor) {
    SHOAL_TRY(const uint32_t dimensions, reader_.read<uint32_t>());
    if (dimensions == 0 || dimensions > limits::kMaxTensorDimensions) {
      return fail(ErrorCode::malformed,
                  fmt::format("{} dimensions, must be 1 to {}", dimensions, limits::kMaxTensorDimensions));
    }
    tensor.shape.resize(dimensions);
    for (uint32_t i = dimensions; i-- > 0;) {
      SHOAL_TRY(tensor.shape[i], reader_.read<uint64_t>());
    }
    SHOAL_TRY_VOID(count_values(tensor.shape));
    SHOAL_TRY(const uint32_t type, reader_.read<uint32_t>());
    SHOAL_TRY(tensor.type, tensor_type_from_ggml(type));
    SHOAL_TRY(const uint64_t rows, count_values(std::span(tensor.shape).first(dimensions - 1)));
    SHOAL_TRY(tensor.bytes, tensor_bytes(tensor.type, rows, tensor.shape.back()));
    SHOAL_TRY(tensor.offset, reader_.read<uint64_t>());
    if (tensor.offset % alignment_ != 0) {
      return fail(ErrorCode::malformed,
                  fmt::format("offset {} is not a multiple of the alignment {}", tensor.offset, alignment_));
    }
    return {};
  }

  // Turns offsets into offsets from the start of the file, now that the end of the header is known.
  Result<> place_tensors() {
    if (header_.tensors.empty()) return {};
    const auto padded = checked_add<uint64_t>(reader_.offset(), alignment_ - 1);
    if (!padded) return fail(ErrorCode::malformed, fmt::format("'general.alignment' is {}", alignment_));
    const uint64_t data_offset = *padded / alignment_ * alignment_;
    std::vector<PlacedTensor> placed;
    placed.reserve(header_.tensors.size());
    for (auto& tensor : header_.tensors) {
      const auto begin = checked_add(data_offset, tensor.offset);
      const auto end = begin ? checked_add(*begin, tensor.bytes) : std::nullopt;
      if (!end || *end > file_bytes_) {
        return fail(
            ErrorCode::malformed,
            fmt::format(
                "tensor {} has {} bytes at offset {} of the data, past the end of the file ({} bytes)",
                quote(tensor.name), tensor.bytes, tensor.offset, file_bytes_),
            "the file may be incomplete; fetch it again");
      }
      tensor.offset = *begin;
      placed.push_back({tensor.name, tensor.offset, tensor.bytes});
    }
    return check_layout(std::move(placed));
  }

  uint64_t file_bytes_;
  ByteReader reader_;
  uint64_t elements_left_ = limits::kMaxMetadataElements;
  uint64_t tensor_count_ = 0;
  uint64_t pair_count_ = 0;
  uint64_t alignment_ = kDefaultAlignment;
  GgufHeader header_{};
};

}  // namespace

Result<GgufHeader> parse_gguf(ByteView file) {
  return HeaderParser(file).parse();
}

}  // namespace shoal::formats
