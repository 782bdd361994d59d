#include "runtime/step.h"

#include <fmt/format.h>

#include "base/limits.h"

namespace shoal::runtime {

namespace {

constexpr uint64_t kMaxStages = limits::kMaxNodes;
// Sequences started or ended by one step. Every count is also bounded by the bytes that follow it.
constexpr uint64_t kMaxStepSequences = limits::kMaxStepRows;
constexpr uint64_t kMaxPages = limits::kMaxContextTokens;

// Elements are appended as their bytes are read, so a count that lies costs nothing.
template <class Element, class Decode>
Result<std::vector<Element>> read_list(ByteReader& reader, std::string_view what, uint64_t limit,
                                       Decode decode) {
  SHOAL_TRY(const uint32_t count, reader.read<uint32_t>());
  if (count > limit)
    return fail(ErrorCode::limit_exceeded, fmt::format("step: {} {}, more than {}", count, what, limit));
  std::vector<Element> elements;
  for (uint32_t index = 0; index < count; ++index) {
    SHOAL_TRY(Element element, decode(reader));
    elements.push_back(std::move(element));
  }
  return elements;
}

template <class T>
void write_values(ByteWriter& writer, const std::vector<T>& values) {
  writer.write_vector(std::span<const T>(values));
}

Result<bool> read_flag(ByteReader& reader) {
  SHOAL_TRY(const uint8_t flag, reader.read<uint8_t>());
  if (flag > 1) return fail(ErrorCode::malformed, fmt::format("step: a flag is {}", flag));
  return flag == 1;
}

void encode_start(ByteWriter& writer, const SequenceStart& start) {
  writer.write(start.sequence);
  writer.write(start.prompt_tokens);
  start.sampling.encode(writer);
  write_values(writer, start.prompt);
  write_values(writer, start.answer);
}

Result<SequenceStart> decode_start(ByteReader& reader) {
  SequenceStart start;
  SHOAL_TRY(start.sequence, reader.read<SequenceId>());
  SHOAL_TRY(start.prompt_tokens, reader.read<uint32_t>());
  if (start.prompt_tokens > limits::kMaxContextTokens)
    return fail(ErrorCode::limit_exceeded, fmt::format("step: a prompt of {} tokens, more than {}",
                                                       start.prompt_tokens, limits::kMaxContextTokens));
  SHOAL_TRY(start.sampling, SamplingParameters::decode(reader));
  SHOAL_TRY(start.prompt, reader.read_vector<int32_t>(limits::kMaxContextTokens));
  SHOAL_TRY(start.answer, reader.read_vector<int32_t>(limits::kMaxContextTokens));
  return start;
}

void encode_sequence(ByteWriter& writer, const StepSequence& sequence) {
  writer.write(sequence.sequence);
  writer.write(sequence.context_tokens);
  writer.write(sequence.row_count);
  writer.write(static_cast<uint8_t>(sequence.samples));
  writer.write(sequence.first_page_index);
  write_values(writer, sequence.pages);
}

Result<StepSequence> decode_sequence(ByteReader& reader) {
  StepSequence sequence;
  SHOAL_TRY(sequence.sequence, reader.read<SequenceId>());
  SHOAL_TRY(sequence.context_tokens, reader.read<uint32_t>());
  SHOAL_TRY(sequence.row_count, reader.read<uint32_t>());
  SHOAL_TRY(sequence.samples, read_flag(reader));
  SHOAL_TRY(sequence.first_page_index, reader.read<uint32_t>());
  SHOAL_TRY(sequence.pages, reader.read_vector<uint32_t>(kMaxPages));
  return sequence;
}

void encode_token(ByteWriter& writer, const StepToken& token) {
  writer.write(token.sequence);
  writer.write(token.sampled.token);
  writer.write(token.sampled.logprob);
  writer.write(static_cast<uint32_t>(token.sampled.alternatives.size()));
  for (const TokenLogprob& alternative : token.sampled.alternatives) {
    writer.write(alternative.token);
    writer.write(alternative.logprob);
  }
}

Result<StepToken> decode_token(ByteReader& reader) {
  StepToken token;
  SHOAL_TRY(token.sequence, reader.read<SequenceId>());
  SHOAL_TRY(token.sampled.token, reader.read<int32_t>());
  SHOAL_TRY(token.sampled.logprob, reader.read<float>());
  SHOAL_TRY(token.sampled.alternatives, reader.read_vector<TokenLogprob>(limits::kMaxTopLogprobs));
  return token;
}

}  // namespace

void Step::encode(ByteWriter& writer) const {
  writer.write(id);
  writer.write(epoch);
  write_values(writer, ended);
  writer.write(static_cast<uint32_t>(started.size()));
  for (const SequenceStart& start : started) encode_start(writer, start);
  write_values(writer, page_copies);
  writer.write(static_cast<uint32_t>(sequences.size()));
  for (const StepSequence& sequence : sequences) encode_sequence(writer, sequence);
  write_values(writer, token_ids);
}

Result<Step> Step::decode(ByteReader& reader) {
  Step step;
  SHOAL_TRY(step.id, reader.read<uint64_t>());
  SHOAL_TRY(step.epoch, reader.read<uint32_t>());
  SHOAL_TRY(step.ended, reader.read_vector<SequenceId>(kMaxStepSequences));
  SHOAL_TRY(step.started,
            read_list<SequenceStart>(reader, "started sequences", kMaxStepSequences, decode_start));
  SHOAL_TRY(step.page_copies, reader.read_vector<PageCopy>(kMaxPages));
  SHOAL_TRY(step.sequences,
            read_list<StepSequence>(reader, "sequences", limits::kMaxStepRows, decode_sequence));
  SHOAL_TRY(step.token_ids, reader.read_vector<int32_t>(limits::kMaxStepRows));
  uint64_t rows = 0;
  for (const StepSequence& sequence : step.sequences) rows += sequence.row_count;
  if (rows != step.token_ids.size())
    return fail(ErrorCode::malformed,
                fmt::format("step {}: its sequences have {} rows, but {} token ids follow", step.id, rows,
                            step.token_ids.size()));
  return step;
}

void StepResult::encode(ByteWriter& writer) const {
  writer.write(id);
  writer.write(epoch);
  writer.write(static_cast<uint32_t>(tokens.size()));
  for (const StepToken& token : tokens) encode_token(writer, token);
  write_values(writer, stage_milliseconds);
}

Result<StepResult> StepResult::decode(ByteReader& reader) {
  StepResult result;
  SHOAL_TRY(result.id, reader.read<uint64_t>());
  SHOAL_TRY(result.epoch, reader.read<uint32_t>());
  SHOAL_TRY(result.tokens, read_list<StepToken>(reader, "tokens", limits::kMaxStepRows, decode_token));
  SHOAL_TRY(result.stage_milliseconds, reader.read_vector<float>(kMaxStages));
  return result;
}

}  // namespace shoal::runtime
