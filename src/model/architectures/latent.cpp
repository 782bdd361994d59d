#include "model/architectures/latent.h"

#include "model/experts.h"

namespace shoal::model {

void name_joint_up(LatentAttentionSpec& attention, const std::string& name,
                   const formats::Checkpoint& checkpoint) {
  const uint32_t both = attention.nope_dim + attention.value_dim;
  TensorRef whole(name);
  whole.shape = {uint64_t{attention.heads} * both, attention.latent_rank};
  const formats::TensorInfo* tensor = checkpoint.find(name);
  const bool is_there = tensor && tensor->shape == whole.shape;
  const uint32_t heads = is_there ? attention.heads : 1;  // one is enough to be told that it is not
  for (uint32_t head = 0; head < heads; ++head) {
    TensorRef& key = attention.key_up.emplace_back(whole);
    key.rows = {.first = head * both, .length = attention.nope_dim};
    key.transposed = true;
    TensorRef& value = attention.value_up.emplace_back(whole);
    value.rows = {.first = head * both + attention.nope_dim, .length = attention.value_dim};
  }
}

void name_split_up(LatentAttentionSpec& attention, const std::string& keys, const std::string& values,
                   const formats::Checkpoint& checkpoint) {
  TensorRef key(keys), value(values);
  key.shape = {attention.heads, attention.latent_rank, attention.nope_dim};
  value.shape = {attention.heads, attention.value_dim, attention.latent_rank};
  attention.key_up = stack_parts(key, attention.heads, checkpoint);
  attention.value_up = stack_parts(value, attention.heads, checkpoint);
}

}  // namespace shoal::model
