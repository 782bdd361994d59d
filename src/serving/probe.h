// How fast this machine reads memory and how fast its kernels multiply, for the planner. Run by a process of
// its own (`shoal measure`, machine_survey.h), because a node never runs kernels. What else runs on the
// machine only takes away, so the best of several short goes counts.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"
#include "formats/tensor_type.h"
#include "serving/machine_figures.h"

namespace shoal::serving {

// With so many threads and the engine's kernels of `isa` (empty: the best). Takes at most about 1.5 s, on
// slow machines for fewer classes of weights. Errors: unsupported (the isa), out_of_memory.
Result<MachineFigures> measure_machine(unsigned threads, std::string_view isa);

// The class in WeightRate::weights that stands for a type: "q8", "q4", "k", "bf16", "f16", "f32", "mxfp4" or
// "f8"; empty for types that are no weights.
std::string_view weight_class(formats::TensorType type);

}  // namespace shoal::serving
