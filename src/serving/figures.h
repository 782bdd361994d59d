// What an owner has measured of its instance, told to every node now and then so that any of them can show
// it.
#pragma once

#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"

namespace shoal::serving {

inline constexpr std::string_view kFiguresTopic = "serving/figures";

struct FiguresMessage {
  std::string instance;
  uint32_t epoch = 0;
  double tokens_per_second = 0;            // of one sequence in decode, recent
  uint32_t waiting = 0;                    // requests
  uint32_t active = 0;                     // sequences
  std::vector<double> stage_milliseconds;  // of a step, recent
  std::vector<std::string> advice = {};    // see DriftWatch

  Bytes encode() const;
  static Result<FiguresMessage> decode(ByteView bytes);
};

}  // namespace shoal::serving
