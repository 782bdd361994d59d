#include "runtime/stage_frame.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <fmt/format.h>

#include "base/limits.h"
#include "formats/half.h"

namespace shoal::runtime {
namespace {

constexpr uint64_t kRowAlignment = 16;
constexpr uint64_t kFixedBytes = 16;

// Where the parts lie, in bytes from the start.
struct Layout {
  uint64_t step_offset = 0;
  uint64_t rows_offset = 0;
  uint64_t total = 0;
};
// All three are at most 2^32, so nothing here overflows 64 bits.
Layout layout_of(uint64_t times, uint64_t step_bytes, uint64_t row_values, WireFormat format) {
  Layout layout;
  layout.step_offset = kFixedBytes + times * sizeof(float);
  uint64_t end = layout.step_offset + step_bytes;
  layout.rows_offset = (end + kRowAlignment - 1) / kRowAlignment * kRowAlignment;
  layout.total =
      layout.rows_offset + row_values * (format == WireFormat::f32 ? sizeof(float) : sizeof(uint16_t));
  return layout;
}

std::unexpected<Error> refuse(const std::string& what) {
  return fail(ErrorCode::malformed, "stage frame: " + what);
}

void copy(std::byte* to, const void* from, size_t bytes) {
  if (bytes != 0) std::memcpy(to, from, bytes);
}

}  // namespace

Result<link::Frame> make_stage_frame(link::Link& link, uint64_t step_id, ByteView step_bytes,
                                     std::span<const float> stage_milliseconds, std::span<const float> hidden,
                                     WireFormat format) {
  if (step_bytes.size() > limits::kMaxFrameBytes || hidden.size() > limits::kMaxFrameBytes) {
    return fail(ErrorCode::limit_exceeded,
                fmt::format("step {}: {} bytes and {} row values do not fit a frame", step_id,
                            step_bytes.size(), hidden.size()));
  }
  Layout layout = layout_of(stage_milliseconds.size(), step_bytes.size(), hidden.size(), format);
  SHOAL_TRY(link::Buffer buffer, link.allocate(layout.total));
  std::byte* data = buffer.data();
  const std::array<uint32_t, 4> counts = {
      static_cast<uint32_t>(stage_milliseconds.size()), static_cast<uint32_t>(step_bytes.size()),
      static_cast<uint32_t>(hidden.size()), static_cast<uint32_t>(format)};
  copy(data, counts.data(), kFixedBytes);
  copy(data + kFixedBytes, stage_milliseconds.data(), stage_milliseconds.size_bytes());
  copy(data + layout.step_offset, step_bytes.data(), step_bytes.size());
  uint64_t step_end = layout.step_offset + step_bytes.size();
  std::memset(data + step_end, 0, layout.rows_offset - step_end);
  if (format == WireFormat::f32) {
    copy(data + layout.rows_offset, hidden.data(), hidden.size_bytes());
  } else {
    std::ranges::transform(hidden, reinterpret_cast<uint16_t*>(data + layout.rows_offset),
                           formats::f32_to_bf16);
  }
  return link::Frame{kStepChannel, step_id, std::move(buffer)};
}

Result<StageFrame> read_stage_frame(const link::Frame& frame) {
  ByteView bytes = frame.payload.view();
  ByteReader reader(bytes);
  SHOAL_TRY(auto times, reader.read<uint32_t>());
  SHOAL_TRY(auto step_bytes, reader.read<uint32_t>());
  SHOAL_TRY(auto row_values, reader.read<uint32_t>());
  SHOAL_TRY(auto format_number, reader.read<uint32_t>());
  if (format_number > static_cast<uint32_t>(WireFormat::bf16))
    return refuse(fmt::format("rows of format {}", format_number));
  const auto format = static_cast<WireFormat>(format_number);
  if (times > limits::kMaxNodes) return refuse(fmt::format("times of {} stages", times));
  Layout layout = layout_of(times, step_bytes, row_values, format);
  if (layout.total != bytes.size())
    return refuse(fmt::format("{} bytes, expected {}", bytes.size(), layout.total));

  StageFrame result;
  result.stage_milliseconds.resize(times);
  if (times != 0)
    std::memcpy(result.stage_milliseconds.data(), bytes.data() + kFixedBytes, times * sizeof(float));
  result.step_bytes = bytes.subspan(layout.step_offset, step_bytes);
  ByteReader step_reader(result.step_bytes);
  SHOAL_TRY(result.step, Step::decode(step_reader));
  if (step_reader.remaining() != 0) return refuse("bytes behind the step");
  if (result.step.id != frame.step)
    return refuse(fmt::format("step {} in a frame of step {}", result.step.id, frame.step));
  const std::byte* rows = bytes.data() + layout.rows_offset;
  if (format == WireFormat::f32) {
    result.hidden = {reinterpret_cast<const float*>(rows), row_values};
  } else {
    const std::span words(reinterpret_cast<const uint16_t*>(rows), row_values);
    result.widened.resize(row_values);
    std::ranges::transform(words, result.widened.begin(), formats::bf16_to_f32);
    result.hidden = result.widened;
  }
  return result;
}

Result<link::Frame> make_result_frame(link::Link& link, const StepResult& result) {
  ByteWriter writer;
  result.encode(writer);
  SHOAL_TRY(link::Buffer buffer, link.allocate(writer.bytes().size()));
  copy(buffer.data(), writer.bytes().data(), writer.bytes().size());
  return link::Frame{kResultChannel, result.id, std::move(buffer)};
}

Result<StepResult> read_result_frame(const link::Frame& frame) {
  ByteReader reader(frame.payload.view());
  SHOAL_TRY(auto result, StepResult::decode(reader));
  if (reader.remaining() != 0) return refuse("bytes behind the step result");
  return result;
}

}  // namespace shoal::runtime
