// Every tensor that a spec names, with the shape its sizes imply: for checks, costs and what a rank fetches.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "base/result.h"
#include "formats/checkpoint.h"
#include "model/decoder_spec.h"

namespace shoal::model {

enum class TensorRole : uint8_t {
  every_token,  // its weights meet every token
  expert,       // one of a mixture's experts
};

using TensorVisitor =
    std::function<void(const TensorRef& ref, const std::vector<uint64_t>& shape, TensorRole role)>;

void visit_mixer_tensors(const DecoderSpec& spec, const MixerSpec& mixer, const TensorVisitor& visit);
void visit_feed_forward_tensors(const DecoderSpec& spec, const FeedForwardSpec& feed_forward,
                                const TensorVisitor& visit);
// Both, and the norms around them.
void visit_layer_tensors(const DecoderSpec& spec, const LayerSpec& layer, const TensorVisitor& visit);

// The tensor behind a ref, which must exist with the shape that the ref or `shape` says.
Result<const formats::TensorInfo*> find_tensor(const formats::Checkpoint& checkpoint, const TensorRef& ref,
                                               const std::vector<uint64_t>& shape);

uint64_t value_count(const std::vector<uint64_t>& shape);
// Bytes in the file of a weight of shape `part` that is a part of `tensor`.
uint64_t bytes_of_part(const formats::TensorInfo& tensor, const std::vector<uint64_t>& part);

// Settles the vocabulary, then checks that every tensor named exists with its shape and that none is left
// over.
Result<> check_tensors(DecoderSpec& spec, const formats::Checkpoint& checkpoint);

}  // namespace shoal::model
