// The mixtures' part of model/config.h: where checkpoints keep the matrices of experts.
#include <fmt/format.h>

#include "model/config.h"

namespace shoal::model {
namespace {

using formats::Checkpoint;

engine::Runs neighbours(uint32_t first, uint32_t count) {
  return {.first = first, .length = count, .stride = count, .count = 1};
}

// Names of three stacks, or of two of which the first holds gate and up.
struct Stacks {
  std::string gate, up, down;  // [E, F, D] [E, F, D] [E, D, F]
  std::string gate_up;         // [E, 2F, D]; then gate and up are not there
};

// Of stacks that the file does not hold in this shape, the first matrix is named, for check_tensors to miss:
// a configuration alone must not cost memory.
void name_stacks(MixtureSpec& mixture, uint64_t hidden_size, const Checkpoint& checkpoint,
                 const Stacks& stacks) {
  const uint32_t experts = mixture.router_op.expert_count, width = mixture.width;
  const formats::TensorInfo* down = checkpoint.find(stacks.down);
  const bool is_there = down && down->shape == std::vector<uint64_t>{experts, hidden_size, width};
  for (uint32_t index = 0; index < (is_there ? experts : 1); ++index) {
    if (stacks.gate_up.empty()) {
      mixture.gate.push_back(stacked_matrix(stacks.gate, index, {experts, width, hidden_size}));
      mixture.up.push_back(stacked_matrix(stacks.up, index, {experts, width, hidden_size}));
    } else {
      const std::vector<uint64_t> shape = {experts, uint64_t{2} * width, hidden_size};
      mixture.gate.push_back(stacked_matrix(stacks.gate_up, index, shape, neighbours(0, width)));
      mixture.up.push_back(stacked_matrix(stacks.gate_up, index, shape, neighbours(width, width)));
    }
    mixture.down.push_back(stacked_matrix(stacks.down, index, {experts, hidden_size, width}));
  }
}

// `pattern` has a place for the number of the expert and one for the name of the matrix.
void name_separate(MixtureSpec& mixture, std::string_view pattern, const Checkpoint& checkpoint,
                   const ExpertNames& names) {
  const auto name = [&](uint32_t index, std::string_view matrix) {
    return TensorRef(
        fmt::format(fmt::runtime(pattern), fmt::arg("expert", index), fmt::arg("matrix", matrix)));
  };
  for (uint32_t index = 0; index < mixture.router_op.expert_count; ++index) {
    mixture.gate.push_back(name(index, names.gate));
    mixture.up.push_back(name(index, names.up));
    mixture.down.push_back(name(index, names.down));
    if (!checkpoint.find(mixture.down.back().name)) break;
  }
}

}  // namespace

TensorRef stacked_matrix(std::string name, uint32_t index, std::vector<uint64_t> shape, engine::Runs rows) {
  TensorRef ref(std::move(name));
  ref.index = index;
  ref.shape = std::move(shape);
  ref.rows = rows;
  return ref;
}

TensorRef matrix_rows(std::string name, std::vector<uint64_t> shape, uint32_t first, uint32_t count) {
  TensorRef ref(std::move(name));
  ref.shape = std::move(shape);
  ref.rows = neighbours(first, count);
  return ref;
}

void name_experts(MixtureSpec& mixture, const std::string& prefix, uint64_t hidden_size,
                  const Checkpoint& checkpoint, const ExpertNames& names) {
  const std::string stack = prefix + "switch_mlp.";
  if (checkpoint.find(stack + "gate_proj.weight")) {
    return name_stacks(mixture, hidden_size, checkpoint,
                       {.gate = stack + "gate_proj.weight",
                        .up = stack + "up_proj.weight",
                        .down = stack + "down_proj.weight",
                        .gate_up = ""});
  }
  for (const char* ending : {"", ".weight"}) {
    const std::string fused = prefix + "experts.gate_up_proj" + ending;
    if (!checkpoint.find(fused)) continue;
    return name_stacks(
        mixture, hidden_size, checkpoint,
        {.gate = "", .up = "", .down = prefix + "experts.down_proj" + ending, .gate_up = fused});
  }
  name_separate(mixture, prefix + "experts.{expert}.{matrix}.weight", checkpoint, names);
}

void name_gguf_experts(MixtureSpec& mixture, const std::string& prefix, uint64_t hidden_size,
                       const Checkpoint& checkpoint) {
  mixture.router = TensorRef(prefix + "ffn_gate_inp.weight");
  const std::string down = prefix + "ffn_down_exps.weight", fused = prefix + "ffn_gate_up_exps.weight";
  if (checkpoint.find(fused)) {
    name_stacks(mixture, hidden_size, checkpoint, {.gate = "", .up = "", .down = down, .gate_up = fused});
  } else if (checkpoint.find(prefix + "ffn_gate.0.weight")) {
    name_separate(mixture, prefix + "ffn_{matrix}.{expert}.weight", checkpoint,
                  {.gate = "gate", .up = "up", .down = "down"});
  } else {
    name_stacks(mixture, hidden_size, checkpoint,
                {.gate = prefix + "ffn_gate_exps.weight",
                 .up = prefix + "ffn_up_exps.weight",
                 .down = down,
                 .gate_up = ""});
  }
}

}  // namespace shoal::model
