#include "serving/relay_messages.h"

#include <fmt/format.h>

#include "base/limits.h"
#include "serving/codec.h"

namespace shoal::serving {
namespace {

constexpr uint64_t kMaxTokens = 64 * limits::kKiB;  // of one message
constexpr uint64_t kMaxTextBytes = limits::kMaxBodyBytes;

void write_prompt(ByteWriter& writer, const Prompt& prompt) {
  writer.write(static_cast<uint8_t>(prompt.index()));
  if (const auto* chat = std::get_if<ChatPrompt>(&prompt)) {
    writer.write_text(to_text(Json(chat->messages)));
    writer.write_text(to_text(Json(chat->tools)));
    writer.write_text(to_text(Json(chat->template_arguments)));
  } else if (const auto* plain = std::get_if<TextPrompt>(&prompt)) {
    writer.write_text(plain->text);
  } else {
    writer.write_vector(std::span<const int32_t>(std::get<std::vector<int32_t>>(prompt)));
  }
}

Result<JsonArray> read_array(ByteReader& reader) {
  SHOAL_TRY(const std::string_view text, reader.read_text(kMaxTextBytes));
  SHOAL_TRY(Json json, parse_json(text, "a relayed request"));
  if (!json.is_array())
    return fail(ErrorCode::malformed, "a relayed request has something else for an array");
  return std::move(json.get_array());
}

Result<Prompt> read_prompt(ByteReader& reader) {
  SHOAL_TRY(const uint8_t kind, reader.read<uint8_t>());
  if (kind == 0) {
    ChatPrompt chat;
    SHOAL_TRY(chat.messages, read_array(reader));
    SHOAL_TRY(chat.tools, read_array(reader));
    SHOAL_TRY(const std::string_view arguments, reader.read_text(kMaxTextBytes));
    SHOAL_TRY(chat.template_arguments, parse_json_object(arguments, "a relayed request"));
    return chat;
  }
  if (kind == 1) {
    SHOAL_TRY(const std::string_view text, reader.read_text(kMaxTextBytes));
    return TextPrompt{std::string(text)};
  }
  if (kind != 2) return fail(ErrorCode::malformed, fmt::format("prompt kind {} is unknown", kind));
  return reader.read_vector<int32_t>(limits::kMaxContextTokens);  // their range is the gateway's to check
}

void write_optional(ByteWriter& writer, const std::optional<uint32_t>& value) {
  writer.write(static_cast<uint8_t>(value.has_value()));
  writer.write(value.value_or(0));
}

Result<std::optional<uint32_t>> read_optional(ByteReader& reader) {
  SHOAL_TRY(const bool present, read_flag(reader));
  SHOAL_TRY(const uint32_t value, reader.read<uint32_t>());
  return present ? std::optional(value) : std::nullopt;
}

template <class Choice>
Result<Choice> read_choice(ByteReader& reader, Choice last) {
  SHOAL_TRY(const auto value, reader.read<uint8_t>());
  if (value <= static_cast<uint8_t>(last)) return static_cast<Choice>(value);
  return fail(ErrorCode::malformed, fmt::format("choice {} is unknown", value));
}

void write_token_text(ByteWriter& writer, const TokenText& token) {
  writer.write_text(token.text);
  write_sampled(writer, token.sampled);
  writer.write(static_cast<uint32_t>(token.alternative_texts.size()));
  for (const std::string& text : token.alternative_texts) writer.write_text(text);
}

Result<TokenText> read_token_text(ByteReader& reader) {
  TokenText token;
  SHOAL_TRY(token.text, reader.read_text(kMaxTextBytes));
  SHOAL_TRY(token.sampled, read_sampled(reader));
  SHOAL_TRY(const uint32_t count, reader.read<uint32_t>());
  if (count != 0 && count != token.sampled.alternatives.size())
    return fail(ErrorCode::malformed,
                fmt::format("{} texts for {} tokens", count, token.sampled.alternatives.size()));
  for (uint32_t index = 0; index < count; ++index) {
    SHOAL_TRY(const std::string_view text, reader.read_text(kMaxTextBytes));
    token.alternative_texts.emplace_back(text);
  }
  return token;
}

void write_finished(ByteWriter& writer, const Finished& finished) {
  writer.write(static_cast<uint8_t>(finished.reason));
  writer.write(static_cast<uint8_t>(finished.stop.has_value()));
  writer.write_text(finished.stop.value_or(""));
  writer.write(finished.usage);
}

Result<Finished> read_finished(ByteReader& reader) {
  Finished finished;
  SHOAL_TRY(const uint8_t reason, reader.read<uint8_t>());
  if (reason > static_cast<uint8_t>(FinishReason::cancelled))
    return fail(ErrorCode::malformed, fmt::format("finish reason {} is unknown", reason));
  finished.reason = static_cast<FinishReason>(reason);
  SHOAL_TRY(const bool stopped, read_flag(reader));
  SHOAL_TRY(const std::string_view stop, reader.read_text(kMaxTextBytes));
  if (stopped) finished.stop = std::string(stop);
  SHOAL_TRY(finished.usage, reader.read<Usage>());
  return finished;
}

}  // namespace

Bytes AskMessage::encode() const {
  ByteWriter writer;
  writer.write(id);
  writer.write_text(request.model);
  write_prompt(writer, request.prompt);
  request.sampling.encode(writer);
  write_optional(writer, request.max_tokens);
  writer.write(static_cast<uint32_t>(request.stop.size()));
  for (const std::string& stop : request.stop) writer.write_text(stop);
  writer.write(static_cast<uint8_t>(request.ignore_end_of_sequence));
  writer.write(static_cast<uint8_t>(request.logprobs));
  return writer.take();
}

Result<AskMessage> AskMessage::decode(ByteView bytes) {
  ByteReader reader(bytes);
  AskMessage message;
  GenerateRequest& request = message.request;
  SHOAL_TRY(message.id, reader.read<uint64_t>());
  SHOAL_TRY(request.model, reader.read_text(kMaxNameBytes));
  SHOAL_TRY(request.prompt, read_prompt(reader));
  SHOAL_TRY(request.sampling, runtime::SamplingParameters::decode(reader));
  SHOAL_TRY(request.max_tokens, read_optional(reader));
  SHOAL_TRY(const uint32_t stops, reader.read<uint32_t>());
  if (stops > limits::kMaxStopStrings)
    return fail(ErrorCode::malformed,
                fmt::format("{} stop strings, at most {}", stops, limits::kMaxStopStrings));
  for (uint32_t index = 0; index < stops; ++index) {
    SHOAL_TRY(const std::string_view stop, reader.read_text(limits::kMaxStopStringBytes));
    request.stop.emplace_back(stop);
  }
  SHOAL_TRY(request.ignore_end_of_sequence, read_flag(reader));
  SHOAL_TRY(request.logprobs, read_flag(reader));
  SHOAL_TRY_VOID(check_end(reader));
  return message;
}

Bytes HangUpMessage::encode() const {
  ByteWriter writer;
  writer.write(id);
  return writer.take();
}

Result<HangUpMessage> HangUpMessage::decode(ByteView bytes) {
  ByteReader reader(bytes);
  HangUpMessage message;
  SHOAL_TRY(message.id, reader.read<uint64_t>());
  SHOAL_TRY_VOID(check_end(reader));
  return message;
}

Bytes HeardMessage::encode() const {
  ByteWriter writer;
  writer.write(id);
  writer.write(index);
  writer.write_text(text);
  writer.write(static_cast<uint32_t>(tokens.size()));
  for (const TokenText& token : tokens) write_token_text(writer, token);
  writer.write(static_cast<uint8_t>(end.index()));
  if (const auto* finished = std::get_if<Finished>(&end)) write_finished(writer, *finished);
  if (const auto* error = std::get_if<Error>(&end)) write_error(writer, *error);
  return writer.take();
}

Result<HeardMessage> HeardMessage::decode(ByteView bytes) {
  ByteReader reader(bytes);
  HeardMessage message;
  SHOAL_TRY(message.id, reader.read<uint64_t>());
  SHOAL_TRY(message.index, reader.read<uint32_t>());
  SHOAL_TRY(message.text, reader.read_text(kMaxTextBytes));
  SHOAL_TRY(const uint32_t count, reader.read<uint32_t>());
  if (count > kMaxTokens)
    return fail(ErrorCode::malformed, fmt::format("{} tokens in one message, at most {}", count, kMaxTokens));
  for (uint32_t index = 0; index < count; ++index) {
    SHOAL_TRY(TokenText token, read_token_text(reader));
    message.tokens.push_back(std::move(token));
  }
  SHOAL_TRY(const uint8_t end, reader.read<uint8_t>());
  if (end == 1) {
    SHOAL_TRY(message.end, read_finished(reader));
  } else if (end == 2) {
    SHOAL_TRY(message.end, read_error(reader));
  } else if (end != 0) {
    return fail(ErrorCode::malformed, fmt::format("end {} is unknown", end));
  }
  SHOAL_TRY_VOID(check_end(reader));
  return message;
}

Bytes PlaceMessage::encode() const {
  ByteWriter writer;
  writer.write(id);
  writer.write_text(options.model);
  writer.write(static_cast<uint8_t>(options.preview));
  writer.write(options.minimum_nodes);
  write_optional(writer, options.context_tokens);
  writer.write(options.strategy);
  writer.write(options.objective);
  writer.write(options.wire);
  write_optional(writer, options.concurrency);
  return writer.take();
}

Result<PlaceMessage> PlaceMessage::decode(ByteView bytes) {
  ByteReader reader(bytes);
  PlaceMessage message;
  SHOAL_TRY(message.id, reader.read<uint64_t>());
  SHOAL_TRY(message.options.model, reader.read_text(kMaxNameBytes));
  SHOAL_TRY(message.options.preview, read_flag(reader));
  SHOAL_TRY(message.options.minimum_nodes, reader.read<uint32_t>());
  SHOAL_TRY(message.options.context_tokens, read_optional(reader));
  SHOAL_TRY(message.options.strategy, read_choice(reader, planner::Strategy::hybrid));
  SHOAL_TRY(message.options.objective, read_choice(reader, planner::Objective::ttft));
  SHOAL_TRY(message.options.wire, read_choice(reader, planner::WireFormat::bf16));
  SHOAL_TRY(message.options.concurrency, read_optional(reader));
  SHOAL_TRY_VOID(check_end(reader));
  return message;
}

Bytes PlacedMessage::encode() const {
  ByteWriter writer;
  writer.write(id);
  writer.write(static_cast<uint8_t>(outcome.has_value()));
  if (outcome)
    writer.write_text(to_text(*outcome));
  else
    write_error(writer, outcome.error());
  return writer.take();
}

Result<PlacedMessage> PlacedMessage::decode(ByteView bytes) {
  ByteReader reader(bytes);
  SHOAL_TRY(const uint64_t id, reader.read<uint64_t>());
  SHOAL_TRY(const bool placed, read_flag(reader));
  PlacedMessage message{.id = id, .outcome = Json(nullptr)};
  if (placed) {
    SHOAL_TRY(const std::string_view text, reader.read_text(kMaxTextBytes));
    SHOAL_TRY(message.outcome, parse_json(text, "a placement"));
  } else {
    SHOAL_TRY(Error error, read_error(reader));
    message.outcome = std::unexpected(std::move(error));
  }
  SHOAL_TRY_VOID(check_end(reader));
  return message;
}

}  // namespace shoal::serving
