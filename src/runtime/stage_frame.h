// What stages send each other. On kStepChannel, to the next rank: the step, the compute times of the stages
// before, and the hidden rows, laid out so that rows lie aligned in the Link's buffer and can be read there:
//   u32 count of times, u32 bytes of the step, u32 count of row values, u32 WireFormat, times [f32], step,
//   zeros to a multiple of 16, rows [rows * hidden size].
// On kResultChannel, from the last rank to rank 0: a StepResult. The header's step field is the step's id.
#pragma once

#include <span>
#include <vector>

#include "base/result.h"
#include "link/link.h"
#include "runtime/step.h"

namespace shoal::runtime {

inline constexpr uint8_t kStepChannel = 0;
inline constexpr uint8_t kResultChannel = 1;

// Of hidden rows between stages. f32 is exact; bf16 is half of it, rounded to the nearest.
enum class WireFormat : uint8_t { f32, bf16 };

struct StageFrame {
  Step step;
  ByteView step_bytes;                    // its binary form, in the frame
  std::vector<float> stage_milliseconds;  // of the stages before, in order
  std::span<const float> hidden;          // in the frame, or in `widened`
  std::vector<float> widened;             // rows that came as bf16
};

// Writes into a buffer of `link`. Errors: limit_exceeded.
Result<link::Frame> make_stage_frame(link::Link& link, uint64_t step_id, ByteView step_bytes,
                                     std::span<const float> stage_milliseconds, std::span<const float> hidden,
                                     WireFormat format = WireFormat::f32);
// The views in the result are into the frame. Errors: malformed.
Result<StageFrame> read_stage_frame(const link::Frame& frame);

Result<link::Frame> make_result_frame(link::Link& link, const StepResult& result);
Result<StepResult> read_result_frame(const link::Frame& frame);

}  // namespace shoal::runtime
