// Reading and writing bytes that nobody vouches for: checked arithmetic, a bounded little-endian reader that can
// never run past its span, and a writer for our own messages.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "base/result.h"

namespace shoal {

static_assert(std::endian::native == std::endian::little, "shoal's files and frames are little-endian");

using Bytes = std::vector<std::byte>;
using ByteView = std::span<const std::byte>;

inline ByteView as_bytes(std::string_view text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}
inline std::string_view as_text(ByteView bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// nullopt on overflow. Every size that came from outside goes through these before it allocates or indexes.
template <class T>
constexpr std::optional<T> checked_add(T a, T b) {
  T sum;
  if (__builtin_add_overflow(a, b, &sum)) return std::nullopt;
  return sum;
}
template <class T>
constexpr std::optional<T> checked_multiply(T a, T b) {
  T product;
  if (__builtin_mul_overflow(a, b, &product)) return std::nullopt;
  return product;
}

// Reads forward through a span. A read past the end returns a `malformed` Error that names the offset.
class ByteReader {
 public:
  explicit ByteReader(ByteView bytes) : bytes_(bytes) {}

  size_t offset() const { return offset_; }
  size_t remaining() const { return bytes_.size() - offset_; }

  template <class T>
    requires std::is_trivially_copyable_v<T>
  Result<T> read() {
    SHOAL_TRY(ByteView raw, take(sizeof(T)));
    T value;
    std::memcpy(&value, raw.data(), sizeof(T));
    return value;
  }
  Result<ByteView> take(uint64_t count);
  // A u32 length, then that many bytes; over `limit` is an Error.
  Result<std::string_view> read_text(uint64_t limit);
  // A u32 count, then that many T; over `limit` elements is an Error.
  template <class T>
    requires std::is_trivially_copyable_v<T>
  Result<std::vector<T>> read_vector(uint64_t limit) {
    SHOAL_TRY(uint32_t count, read<uint32_t>());
    SHOAL_TRY_VOID(check_count(count, limit));
    SHOAL_TRY(ByteView raw, take(uint64_t{count} * sizeof(T)));
    std::vector<T> values(count);
    if (count != 0) std::memcpy(values.data(), raw.data(), raw.size());
    return values;
  }

 private:
  Result<> check_count(uint64_t count, uint64_t limit) const;

  ByteView bytes_;
  size_t offset_ = 0;
};

// The mirror of ByteReader for messages of our own.
class ByteWriter {
 public:
  template <class T>
    requires std::is_trivially_copyable_v<T>
  void write(const T& value) {
    append(std::as_bytes(std::span(&value, 1)));
  }
  void append(ByteView raw) { bytes_.insert(bytes_.end(), raw.begin(), raw.end()); }
  void write_text(std::string_view text) {
    write(static_cast<uint32_t>(text.size()));
    append(as_bytes(text));
  }
  template <class T>
    requires std::is_trivially_copyable_v<T>
  void write_vector(std::span<const T> values) {
    write(static_cast<uint32_t>(values.size()));
    append(std::as_bytes(values));
  }

  const Bytes& bytes() const { return bytes_; }
  Bytes take() { return std::move(bytes_); }

 private:
  Bytes bytes_;
};

}  // namespace shoal
