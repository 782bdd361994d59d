#include "serving/messages.h"

#include <fmt/format.h>

#include "base/limits.h"
#include "serving/codec.h"

namespace shoal::serving {
namespace {

constexpr uint64_t kMaxStopIds = 1024;
constexpr uint64_t kMaxTokensPerMessage = 64 * limits::kKiB;

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
  write_error(writer, error);
  return writer.take();
}

Result<FailMessage> FailMessage::decode(ByteView bytes) {
  ByteReader reader(bytes);
  FailMessage message;
  SHOAL_TRY(message.epoch, reader.read<uint32_t>());
  SHOAL_TRY(message.request, reader.read<RequestId>());
  SHOAL_TRY(message.error, read_error(reader));
  SHOAL_TRY_VOID(check_end(reader));
  return message;
}

}  // namespace shoal::serving
