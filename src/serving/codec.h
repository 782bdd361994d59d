// Parts that the messages of serving share. Internal to the room.
#pragma once

#include <cstdint>
#include <vector>

#include "base/bytes.h"
#include "base/limits.h"
#include "base/result.h"
#include "runtime/sampling.h"

namespace shoal::serving {

inline constexpr uint64_t kMaxNameBytes = 4096;

Result<std::vector<int32_t>> read_token_ids(ByteReader& reader,
                                            uint64_t limit);  // each within kMaxVocabulary
Result<bool> read_flag(ByteReader& reader);                   // a byte that is 0 or 1
Result<> check_end(const ByteReader& reader);                 // nothing may follow

void write_sampled(ByteWriter& writer, const runtime::SampledToken& token);
Result<runtime::SampledToken> read_sampled(ByteReader& reader);

void write_error(ByteWriter& writer, const Error& error);
Result<Error> read_error(ByteReader& reader);

}  // namespace shoal::serving
