#include "serving/messages.h"

#include <fmt/format.h>

#include "base/limits.h"

namespace shoal::serving {
namespace {

constexpr uint64_t kMaxNameBytes = 4096;
constexpr uint64_t kMaxErrorBytes = 64 * limits::kKiB;
constexpr uint64_t kMaxStopIds = 1024;
constexpr uint64_t kMaxTokensPerMessage = 64 * limits::kKiB;
constexpr uint64_t kMaxAlternatives = 4096;

Result<> check_token(int32_t token) {
  if (token < 0 || static_cast<uint64_t>(token) >= limits::kMaxVocabulary)
    return fail(ErrorCode::malformed, fmt::format("token id {} is out of range", token));
  return {};
}

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

}  // namespace

Bytes SubmitMessage::encode() const {
  ByteWriter writer;
  writer.write_text(instance);
  writer.write(epoch);
  writer.write(request);
  writer.write_vector(std::span<const int32_t>(prompt));
  writer.write_vector(std::span<const int32_t>(committed));
  sampling.encode(writer);
  writer.write(maximum_tokens);
  writer.write_vector(std::span<const int32_t>(stop_ids));
  writer.write(static_cast<uint8_t>(ignore_end_of_sequence));
  return writer.take();
}

Result<SubmitMessage> SubmitMessage::decode(ByteView bytes) {
  ByteReader reader(bytes);
  SubmitMessage message;
  SHOAL_TRY(message.instance, reader.read_text(kMaxNameBytes));
  SHOAL_TRY(message.epoch, reader.read<uint32_t>());
  SHOAL_TRY(message.request, reader.read<RequestId>());
  SHOAL_TRY(message.prompt, read_token_ids(reader, limits::kMaxContextTokens));
  SHOAL_TRY(message.committed, read_token_ids(reader, limits::kMaxContextTokens));
  SHOAL_TRY(message.sampling, runtime::SamplingParameters::decode(reader));
  SHOAL_TRY(message.maximum_tokens, reader.read<uint32_t>());
  SHOAL_TRY(message.stop_ids, read_token_ids(reader, kMaxStopIds));
  SHOAL_TRY(message.ignore_end_of_sequence, read_flag(reader));
  SHOAL_TRY_VOID(check_end(reader));
  return message;
}

Bytes CancelMessage::encode() const {
  ByteWriter writer;
  writer.write_text(instance);
  writer.write(epoch);
  writer.write(request);
  return writer.take();
}

Result<CancelMessage> CancelMessage::decode(ByteView bytes) {
  ByteReader reader(bytes);
  CancelMessage message;
  SHOAL_TRY(message.instance, reader.read_text(kMaxNameBytes));
  SHOAL_TRY(message.epoch, reader.read<uint32_t>());
  SHOAL_TRY(message.request, reader.read<RequestId>());
  SHOAL_TRY_VOID(check_end(reader));
  return message;
}

Bytes AcceptMessage::encode() const {
  ByteWriter writer;
  writer.write(epoch);
  writer.write(request);
  return writer.take();
}

Result<AcceptMessage> AcceptMessage::decode(ByteView bytes) {
  ByteReader reader(bytes);
  AcceptMessage message;
  SHOAL_TRY(message.epoch, reader.read<uint32_t>());
  SHOAL_TRY(message.request, reader.read<RequestId>());
  SHOAL_TRY_VOID(check_end(reader));
  return message;
}

Bytes TokensMessage::encode() const {
  ByteWriter writer;
  writer.write(epoch);
  writer.write(request);
  writer.write(first_index);
  writer.write(cached_tokens);
  writer.write(static_cast<uint32_t>(tokens.size()));
  for (const runtime::SampledToken& token : tokens) write_sampled(writer, token);
  writer.write(static_cast<uint8_t>(end ? 1 + static_cast<uint8_t>(*end) : 0));
  return writer.take();
}

Result<TokensMessage> TokensMessage::decode(ByteView bytes) {
  ByteReader reader(bytes);
  TokensMessage message;
  SHOAL_TRY(message.epoch, reader.read<uint32_t>());
  SHOAL_TRY(message.request, reader.read<RequestId>());
  SHOAL_TRY(message.first_index, reader.read<uint32_t>());
  SHOAL_TRY(message.cached_tokens, reader.read<uint32_t>());
  SHOAL_TRY(const uint32_t count, reader.read<uint32_t>());
  if (count > kMaxTokensPerMessage)
    return fail(ErrorCode::malformed,
                fmt::format("{} tokens in one message, at most {}", count, kMaxTokensPerMessage));
  for (uint32_t index = 0; index < count; ++index) {
    SHOAL_TRY(runtime::SampledToken token, read_sampled(reader));
    message.tokens.push_back(std::move(token));
  }
  SHOAL_TRY(const uint8_t end, reader.read<uint8_t>());
  if (end > 2) return fail(ErrorCode::malformed, fmt::format("end reason {} is unknown", end));
  if (end > 0) message.end = static_cast<scheduler::EndReason>(end - 1);
  SHOAL_TRY_VOID(check_end(reader));
  return message;
}

Bytes FailMessage::encode() const {
  ByteWriter writer;
  writer.write(epoch);
  writer.write(request);
  writer.write_text(to_string(error.code));
  writer.write_text(std::string_view(error.message).substr(0, kMaxErrorBytes));
  writer.write_text(std::string_view(error.hint).substr(0, kMaxErrorBytes));
  return writer.take();
}

Result<FailMessage> FailMessage::decode(ByteView bytes) {
  ByteReader reader(bytes);
  FailMessage message;
  SHOAL_TRY(message.epoch, reader.read<uint32_t>());
  SHOAL_TRY(message.request, reader.read<RequestId>());
  SHOAL_TRY(const std::string_view code, reader.read_text(kMaxNameBytes));
  message.error.code = error_code_from_string(code);
  SHOAL_TRY(message.error.message, reader.read_text(kMaxErrorBytes));
  SHOAL_TRY(message.error.hint, reader.read_text(kMaxErrorBytes));
  SHOAL_TRY_VOID(check_end(reader));
  return message;
}

}  // namespace shoal::serving
