#include "base/bytes.h"

#include <fmt/format.h>

namespace shoal {

Result<ByteView> ByteReader::take(uint64_t count) {
  if (count > remaining()) {
    return fail(ErrorCode::malformed, fmt::format("{} bytes expected at offset {}, only {} are there", count,
                                                  offset_, remaining()));
  }
  ByteView raw = bytes_.subspan(offset_, count);
  offset_ += count;
  return raw;
}

Result<> ByteReader::check_count(uint64_t count, uint64_t limit) const {
  if (count <= limit) return {};
  return fail(ErrorCode::malformed, fmt::format("count {} at offset {} is over the limit of {}", count, offset_, limit));
}

Result<std::string_view> ByteReader::read_text(uint64_t limit) {
  SHOAL_TRY(uint32_t length, read<uint32_t>());
  SHOAL_TRY_VOID(check_count(length, limit));
  SHOAL_TRY(ByteView raw, take(length));
  return as_text(raw);
}

}  // namespace shoal
