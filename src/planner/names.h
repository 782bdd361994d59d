// How the planner's choices are written by users: on the command line, in the API, in facts.
#pragma once

#include <array>
#include <optional>
#include <string_view>

#include "planner/planner.h"

namespace shoal::planner {

inline constexpr std::array<std::string_view, 4> kStrategyNames = {"auto", "pipeline", "tensor", "hybrid"};
inline constexpr std::array<std::string_view, 3> kObjectiveNames = {"latency", "throughput", "ttft"};
inline constexpr std::array<std::string_view, 2> kWireFormatNames = {"f32", "bf16"};

inline std::string_view to_string(Strategy strategy) {
  return kStrategyNames[static_cast<size_t>(strategy)];
}
inline std::string_view to_string(Objective objective) {
  return kObjectiveNames[static_cast<size_t>(objective)];
}
inline std::string_view to_string(WireFormat format) {
  return kWireFormatNames[static_cast<size_t>(format)];
}

// The choice of that name among an enum's names; nullopt: there is none.
template <class Choice, size_t count>
std::optional<Choice> choice_of(const std::array<std::string_view, count>& names, std::string_view name) {
  for (size_t i = 0; i < count; ++i) {
    if (names[i] == name) return static_cast<Choice>(i);
  }
  return std::nullopt;
}

}  // namespace shoal::planner
