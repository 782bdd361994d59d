#include "serving/codec.h"

#include <fmt/format.h>

namespace shoal::serving {
namespace {

constexpr uint64_t kMaxErrorBytes = 64 * limits::kKiB;
constexpr uint64_t kMaxAlternatives = 4096;

Result<> check_token(int32_t token) {
  if (token < 0 || static_cast<uint64_t>(token) >= limits::kMaxVocabulary)
    return fail(ErrorCode::malformed, fmt::format("token id {} is out of range", token));
  return {};
}

}  // namespace

Result<std::vector<int32_t>> read_token_ids(ByteReader& reader, uint64_t limit) {
  SHOAL_TRY(std::vector<int32_t> tokens, reader.read_vector<int32_t>(limit));
  for (int32_t token : tokens) SHOAL_TRY_VOID(check_token(token));
  return tokens;
}

Result<bool> read_flag(ByteReader& reader) {
  SHOAL_TRY(const uint8_t value, reader.read<uint8_t>());
  if (value > 1) return fail(ErrorCode::malformed, fmt::format("a flag is {}", value));
  return value == 1;
}

Result<> check_end(const ByteReader& reader) {
  if (reader.remaining() == 0) return {};
  return fail(ErrorCode::malformed, fmt::format("{} bytes follow the message", reader.remaining()));
}

void write_sampled(ByteWriter& writer, const runtime::SampledToken& token) {
  writer.write(token.token);
  writer.write(token.logprob);
  writer.write_vector(std::span<const runtime::TokenLogprob>(token.alternatives));
}

Result<runtime::SampledToken> read_sampled(ByteReader& reader) {
  runtime::SampledToken token;
  SHOAL_TRY(token.token, reader.read<int32_t>());
  SHOAL_TRY_VOID(check_token(token.token));
  SHOAL_TRY(token.logprob, reader.read<float>());
  SHOAL_TRY(token.alternatives, reader.read_vector<runtime::TokenLogprob>(kMaxAlternatives));
  for (const runtime::TokenLogprob& alternative : token.alternatives)
    SHOAL_TRY_VOID(check_token(alternative.token));
  return token;
}

void write_error(ByteWriter& writer, const Error& error) {
  writer.write_text(to_string(error.code));
  writer.write_text(std::string_view(error.message).substr(0, kMaxErrorBytes));
  writer.write_text(std::string_view(error.hint).substr(0, kMaxErrorBytes));
}

Result<Error> read_error(ByteReader& reader) {
  Error error;
  SHOAL_TRY(const std::string_view code, reader.read_text(kMaxNameBytes));
  error.code = error_code_from_string(code);
  SHOAL_TRY(error.message, reader.read_text(kMaxErrorBytes));
  SHOAL_TRY(error.hint, reader.read_text(kMaxErrorBytes));
  return error;
}

}  // namespace shoal::serving
