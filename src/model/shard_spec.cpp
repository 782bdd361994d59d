// From a plan of what a rank holds to the spec that it runs.
#include <algorithm>
#include <numeric>
#include <utility>

#include "model/shard_plan.h"
#include "model/tensors.h"

namespace shoal::model {
namespace {

using engine::Slice;
using Shape = std::vector<uint64_t>;

class LayerCutter {
 public:
  LayerCutter(uint64_t hidden, const LayerShard& shard) : hidden_(hidden), shard_(shard) {}

  void operator()(AttentionSpec& spec) const {
    const Shape queries = {uint64_t{spec.query_heads} * spec.head_dim, hidden_};
    const Shape keys = {uint64_t{spec.kv_heads} * spec.head_dim, hidden_};
    const uint32_t group = spec.query_heads / spec.kv_heads;
    const Slice query_rows = times(shard_.heads, spec.head_dim),
                key_rows = times(shard_.kv_heads, spec.head_dim);
    for (TensorRef* ref : {&spec.query, &spec.gate}) cut_rows(*ref, queries, query_rows);
    for (TensorRef* ref : {&spec.key, &spec.value}) cut_rows(*ref, keys, key_rows);
    for (TensorRef* ref : {&spec.query_bias, &spec.gate_bias}) cut_rows(*ref, {queries[0]}, query_rows);
    for (TensorRef* ref : {&spec.key_bias, &spec.value_bias}) cut_rows(*ref, {keys[0]}, key_rows);
    cut_rows(spec.sinks, {spec.query_heads}, shard_.heads);
    cut_columns(spec.output, {hidden_, queries[0]}, query_rows);
    spec.query_heads = shard_.heads.count;
    spec.kv_heads = shard_.kv_heads.count;
    spec.group_heads = group;
    spec.skipped_heads = shard_.heads.first - shard_.kv_heads.first * group;
  }

  void operator()(LatentAttentionSpec& spec) const {
    const uint32_t query_dim = spec.nope_dim + spec.rope.dimensions;
    const uint64_t queries = uint64_t{spec.heads} * query_dim;
    cut_rows(spec.query, {queries, hidden_}, times(shard_.heads, query_dim));
    cut_rows(spec.query_up, {queries, spec.query_rank}, times(shard_.heads, query_dim));
    cut_columns(spec.output, {hidden_, uint64_t{spec.heads} * spec.value_dim},
                times(shard_.heads, spec.value_dim));
    keep(spec.key_up, shard_.heads);
    keep(spec.value_up, shard_.heads);
    for (TensorRef& ref : spec.key_up)
      cut_rows(ref, {spec.latent_rank, spec.nope_dim}, {0, spec.latent_rank});
    for (TensorRef& ref : spec.value_up)
      cut_rows(ref, {spec.value_dim, spec.latent_rank}, {0, spec.value_dim});
    spec.heads = shard_.heads.count;
  }

  void operator()(DeltaNetSpec& spec) const {
    engine::DeltaNetOp& op = spec.op;
    const uint64_t keys = uint64_t{op.key_heads} * op.key_dim,
                   values = uint64_t{op.value_heads} * op.value_dim;
    const Slice key_rows = times(shard_.kv_heads, op.key_dim), value_rows = times(shard_.heads, op.value_dim);
    if (!keeps_key_heads(op))
      for (TensorRef* ref : {&spec.query, &spec.key}) cut_rows(*ref, {keys, hidden_}, key_rows);
    for (TensorRef* ref : {&spec.value, &spec.gate}) cut_rows(*ref, {values, hidden_}, value_rows);
    for (TensorRef* ref : {&spec.decay_input, &spec.rate_input})
      cut_rows(*ref, {op.value_heads, hidden_}, shard_.heads);
    for (TensorRef* ref : {&spec.decay_bias, &spec.decay}) cut_rows(*ref, {op.value_heads}, shard_.heads);
    cut_columns(spec.output, {hidden_, values}, value_rows);
    cut_taps(spec, key_rows, value_rows);
    if (op.tiled) op.skipped_heads = shard_.heads.first - shard_.kv_heads.first;
    op.key_heads = shard_.kv_heads.count;
    op.value_heads = shard_.heads.count;
  }

  void operator()(DenseSpec& spec) const { cut_dense(spec, shard_.columns); }

  void operator()(MixtureSpec& spec) const {
    const uint64_t width = spec.width;
    for (auto* refs : {&spec.gate, &spec.up, &spec.down, &spec.gate_bias, &spec.up_bias, &spec.down_bias})
      keep(*refs, shard_.experts);
    spec.first_expert = shard_.experts.first;
    for (auto* refs : {&spec.gate, &spec.up})
      for (TensorRef& ref : *refs) cut_rows(ref, {width, hidden_}, shard_.columns);
    for (auto* refs : {&spec.gate_bias, &spec.up_bias})
      for (TensorRef& ref : *refs) cut_rows(ref, {width}, shard_.columns);
    for (TensorRef& ref : spec.down) cut_columns(ref, {hidden_, width}, shard_.columns);
    if (!shard_.adds_expert_bias) spec.down_bias.clear();
    spec.width = shard_.columns.count;
    if (!spec.shared) return;
    cut_dense(*spec.shared, shard_.shared_columns);
    if (!is_elsewhere(*spec.shared)) return;
    spec.shared.reset();
    spec.shared_gate = {};
  }

 private:
  static Slice times(const Slice& heads, uint32_t size) { return {heads.first * size, heads.count * size}; }

  // `shape` is the whole weight's.
  static void cut_rows(TensorRef& ref, const Shape& shape, const Slice& part) {
    if (ref.empty()) return;
    if (ref.shape.empty()) ref.shape = shape;
    ref.part_rows = part;
  }
  static void cut_columns(TensorRef& ref, const Shape& shape, const Slice& part) {
    if (ref.shape.empty()) ref.shape = shape;
    ref.part_columns = part;
  }

  static void keep(std::vector<TensorRef>& refs, const Slice& kept) {
    if (!refs.empty()) refs = {refs.begin() + kept.first, refs.begin() + kept.end()};
  }

  void cut_dense(DenseSpec& spec, const Slice& columns) const {
    for (TensorRef* ref : {&spec.gate, &spec.up}) cut_rows(*ref, {spec.width, hidden_}, columns);
    for (TensorRef* ref : {&spec.gate_bias, &spec.up_bias}) cut_rows(*ref, {spec.width}, columns);
    cut_columns(spec.down, {hidden_, spec.width}, columns);
    spec.width = columns.count;
  }

  // The channels of queries, of keys and of values lie one after the other.
  static void cut_taps(DeltaNetSpec& spec, const Slice& key_rows, const Slice& value_rows) {
    const engine::DeltaNetOp& op = spec.op;
    const uint32_t keys = op.key_heads * op.key_dim;
    const TensorRef whole = std::move(spec.taps.front());
    spec.taps.clear();
    for (const Slice& channels : {key_rows, Slice{keys + key_rows.first, key_rows.count},
                                  Slice{2 * keys + value_rows.first, value_rows.count}}) {
      spec.taps.push_back(whole);
      cut_rows(spec.taps.back(), {uint64_t{op.channels()} * op.kernel}, times(channels, op.kernel));
    }
  }

  uint64_t hidden_;
  const LayerShard& shard_;
};

// Everything, as a part.
struct WholeLayer {
  void operator()(const AttentionSpec& spec) {
    shard.heads = {0, spec.query_heads};
    shard.kv_heads = {0, spec.kv_heads};
  }
  void operator()(const LatentAttentionSpec& spec) { shard.heads = {0, spec.heads}; }
  void operator()(const DeltaNetSpec& spec) {
    shard.heads = {0, spec.op.value_heads};
    shard.kv_heads = {0, spec.op.key_heads};
  }
  void operator()(const DenseSpec& spec) { shard.columns = {0, spec.width}; }
  void operator()(const MixtureSpec& spec) {
    shard.columns = {0, spec.width};
    shard.experts = {0, spec.router_op.expert_count};
    if (spec.shared) shard.shared_columns = {0, spec.shared->width};
    shard.adds_expert_bias = true;
  }

  LayerShard shard;
};

uint32_t pieces(uint32_t size, uint32_t together) {
  return (size + together - 1) / together;
}

// Into how many pieces ranks can divide a mixer or a feed-forward.
class PieceCounter {
 public:
  PieceCounter(const formats::Checkpoint& checkpoint, LayerCuts& cuts)
      : checkpoint_(checkpoint), cuts_(cuts) {}

  Result<> operator()(const AttentionSpec& spec) const {
    return count_heads(spec.output, spec.head_dim, spec.query_heads, spec.kv_heads);
  }
  Result<> operator()(const LatentAttentionSpec& spec) const {
    cuts_.kv_is_whole = true;
    return count_heads(spec.output, spec.value_dim, spec.heads, spec.heads);
  }
  Result<> operator()(const DeltaNetSpec& spec) const {
    const engine::DeltaNetOp& op = spec.op;
    SHOAL_TRY_VOID(count_heads(spec.output, op.value_dim, op.value_heads, op.key_heads));
    // Value heads go with their key head, or, in a tiled net, each rank has all key heads.
    if (keeps_key_heads(op)) {
      cuts_.kv_pieces = cuts_.head_pieces;
    } else {
      cuts_.head_pieces = cuts_.kv_pieces;
    }
    return {};
  }
  Result<> operator()(const DenseSpec& spec) const {
    SHOAL_TRY(const uint32_t block, columns_together(checkpoint_, spec.down));
    cuts_.width_pieces = pieces(spec.width, block);
    return {};
  }
  Result<> operator()(const MixtureSpec& spec) const {
    SHOAL_TRY(const uint32_t block, columns_together(checkpoint_, spec.down.front()));
    // Where experts stay whole there are at least four for each rank.
    cuts_.width_pieces = std::max(pieces(spec.width, block), spec.router_op.expert_count / 4);
    return {};
  }

 private:
  Result<> count_heads(const TensorRef& output, uint32_t head_dim, uint32_t heads, uint32_t kv_heads) const {
    SHOAL_TRY(const uint32_t block, columns_together(checkpoint_, output));
    const uint32_t together = block / std::gcd(block, head_dim), group = heads / kv_heads;
    cuts_.head_pieces = pieces(heads, together);
    cuts_.kv_pieces = pieces(kv_heads, together / std::gcd(together, group));
    return {};
  }

  const formats::Checkpoint& checkpoint_;
  LayerCuts& cuts_;
};

Result<LayerCuts> cuts_of(const DecoderSpec& spec, LayerSpec layer, const formats::Checkpoint& checkpoint) {
  LayerCuts cuts;
  const PieceCounter counter(checkpoint, cuts);
  SHOAL_TRY_VOID(std::visit(counter, layer.mixer));
  SHOAL_TRY_VOID(std::visit(counter, layer.feed_forward));
  WholeLayer whole;
  std::visit(whole, layer.mixer);
  std::visit(whole, layer.feed_forward);
  // What is cut has a part now.
  const LayerCutter cutter(spec.hidden_size, whole.shard);
  std::visit(cutter, layer.mixer);
  std::visit(cutter, layer.feed_forward);
  const auto add = [&](const TensorRef& ref, const Shape& shape, TensorRole role, uint64_t& cut_bytes) {
    const formats::TensorInfo* tensor = checkpoint.find(ref.name);
    const bool is_cut = ref.part_rows.count != Slice::kAll || ref.part_columns.count != Slice::kAll;
    const uint64_t bytes = tensor ? bytes_of_part(*tensor, shape) : 0;
    (is_cut || role == TensorRole::expert ? cut_bytes : cuts.whole_bytes) += bytes;
    if (role == TensorRole::expert) cuts.expert_bytes += bytes;
  };
  uint64_t feed_forward_bytes = 0, norm_bytes = 0;
  visit_mixer_tensors(spec, layer.mixer, [&](const TensorRef& ref, const Shape& shape, TensorRole role) {
    add(ref, shape, role, cuts.mixer_bytes);
  });
  visit_feed_forward_tensors(spec, layer.feed_forward,
                             [&](const TensorRef& ref, const Shape& shape, TensorRole role) {
                               add(ref, shape, role, feed_forward_bytes);
                             });
  for (const TensorRef* norm :
       {&layer.mixer_norm, &layer.mixer_post_norm, &layer.feed_forward_norm, &layer.feed_forward_post_norm})
    if (!norm->empty()) add(*norm, {spec.hidden_size}, TensorRole::every_token, norm_bytes);
  return cuts;
}

}  // namespace

Result<std::vector<LayerCuts>> layer_cuts(const DecoderSpec& spec, const formats::Checkpoint& checkpoint) {
  std::vector<LayerCuts> all;
  for (const LayerSpec& layer : spec.layers) {
    SHOAL_TRY(all.emplace_back(), cuts_of(spec, layer, checkpoint));
  }
  return all;
}

Result<DecoderSpec> shard_spec(const DecoderSpec& spec, const formats::Checkpoint& checkpoint,
                               const engine::TensorShard& shard) {
  SHOAL_TRY(ShardPlan plan, shard_plan(spec, checkpoint, shard));
  DecoderSpec own = spec;
  if (shard.count == 1) return own;
  for (size_t layer = 0; layer < own.layers.size(); ++layer) {
    const LayerCutter cutter(spec.hidden_size, plan.layers[layer]);
    std::visit(cutter, own.layers[layer].mixer);
    std::visit(cutter, own.layers[layer].feed_forward);
  }
  if (own.head.shape.empty()) own.head.shape = {spec.vocabulary_size, spec.hidden_size};
  own.head.part_rows = plan.own_head_rows;
  own.head_rows = std::move(plan.head_rows);
  return own;
}

}  // namespace shoal::model
