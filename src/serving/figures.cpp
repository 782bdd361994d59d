#include "serving/figures.h"

#include <cmath>

#include "base/limits.h"
#include "serving/codec.h"

namespace shoal::serving {
namespace {

constexpr uint32_t kMaxAdvice = 64;  // lines

}  // namespace

Bytes FiguresMessage::encode() const {
  ByteWriter writer;
  writer.write_text(instance);
  writer.write(epoch);
  writer.write(tokens_per_second);
  writer.write(waiting);
  writer.write(active);
  writer.write_vector(std::span<const double>(stage_milliseconds));
  writer.write(static_cast<uint32_t>(advice.size()));
  for (const std::string& words : advice) writer.write_text(words);
  return writer.take();
}

Result<FiguresMessage> FiguresMessage::decode(ByteView bytes) {
  ByteReader reader(bytes);
  FiguresMessage message;
  SHOAL_TRY(message.instance, reader.read_text(kMaxNameBytes));
  SHOAL_TRY(message.epoch, reader.read<uint32_t>());
  SHOAL_TRY(message.tokens_per_second, reader.read<double>());
  SHOAL_TRY(message.waiting, reader.read<uint32_t>());
  SHOAL_TRY(message.active, reader.read<uint32_t>());
  SHOAL_TRY(message.stage_milliseconds, reader.read_vector<double>(limits::kMaxNodes));
  SHOAL_TRY(const auto lines, reader.read<uint32_t>());
  if (lines > kMaxAdvice) return fail(ErrorCode::limit_exceeded, "too much advice");
  for (uint32_t line = 0; line < lines; ++line) {
    SHOAL_TRY(const std::string_view words, reader.read_text(kMaxNameBytes));
    message.advice.emplace_back(words);
  }
  if (!std::isfinite(message.tokens_per_second)) return fail(ErrorCode::malformed, "a rate is not finite");
  for (const double value : message.stage_milliseconds)
    if (!std::isfinite(value)) return fail(ErrorCode::malformed, "a step time is not finite");
  SHOAL_TRY_VOID(check_end(reader));
  return message;
}

}  // namespace shoal::serving
