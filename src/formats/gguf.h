// GGUF versions 2 and 3 (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md), read from bytes nobody vouches for.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "formats/tensor_type.h"

namespace shoal::formats {

// A metadata value. Integers of every width arrive as int64 or uint64, floats as double; arrays are homogeneous,
// and arrays of arrays are refused.
using GgufValue = std::variant<bool, int64_t, uint64_t, double, std::string, std::vector<bool>, std::vector<int64_t>,
                               std::vector<uint64_t>, std::vector<double>, std::vector<std::string>>;

// The key-value part of a GGUF header. Typed getters name the key and the value found in their Error.
class GgufMetadata {
 public:
  const GgufValue* find(std::string_view key) const;
  Result<std::optional<int64_t>> get_integer(std::string_view key, int64_t minimum, int64_t maximum) const;
  Result<int64_t> require_integer(std::string_view key, int64_t minimum, int64_t maximum) const;
  Result<std::optional<double>> get_number(std::string_view key) const;
  Result<std::optional<bool>> get_bool(std::string_view key) const;
  Result<std::optional<std::string>> get_string(std::string_view key) const;
  Result<std::string> require_string(std::string_view key) const;
  const std::vector<std::string>* find_strings(std::string_view key) const;  // nullptr when absent or of another type
  const std::vector<double>* find_numbers(std::string_view key) const;
  std::vector<int64_t> integers(std::string_view key) const;                 // empty when absent or of another type
  const std::map<std::string, GgufValue, std::less<>>& all() const { return values_; }

  std::map<std::string, GgufValue, std::less<>> values_;
};

struct GgufTensor {
  std::string name;
  TensorType type;
  std::vector<uint64_t> shape;  // outermost first (the file stores innermost first)
  uint64_t offset;              // from the start of the file
  uint64_t bytes;
};

struct GgufHeader {
  uint32_t version;
  GgufMetadata metadata;
  std::vector<GgufTensor> tensors;
};

// The type with ggml's number; `unsupported` with its name for one that shoal cannot use, `malformed` for one that
// it does not know.
Result<TensorType> tensor_type_from_ggml(uint32_t number);

// Parses the header of a whole mapped file and checks every tensor against the file's size.
Result<GgufHeader> parse_gguf(ByteView file);

}  // namespace shoal::formats
