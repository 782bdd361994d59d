// What a core's arithmetic units do at most: loops of one instruction on registers, enough of them in flight.
// The limit beside which the kernels' figures stand; measured in the same run, since clocks differ from
// minute to minute.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace shoal::bench {

enum class PeakKind : uint8_t { int8_vector, int8_matrix, f32_vector };

struct ComputePeak {
  PeakKind kind;
  std::string_view name;  // "vpdpbusd zmm"
  double operations;      // of a turn; a multiply-add is two
  void (*run)(uint64_t turns);
};

// Of this machine: the widest of each kind that it has.
std::span<const ComputePeak> compute_peaks();
const ComputePeak* find_peak(PeakKind kind);  // null: this machine has none, or none known here

// Operations a second of a core's own time, in 1e9: the best of `rounds` goes of about 5 ms.
double measure_peak(const ComputePeak& peak, int rounds);

}  // namespace shoal::bench
