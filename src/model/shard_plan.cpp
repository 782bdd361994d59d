#include "model/shard_plan.h"

#include <algorithm>
#include <fmt/format.h>
#include <numeric>

namespace shoal::model {
namespace {

using engine::Slice;
using engine::TensorShard;
using Shares = std::span<const uint32_t>;

constexpr uint32_t kPanelRows = 16;    // what engines like to cut by
constexpr double kMostLopsided = 1.5;  // of the widest rank over its fair share, before experts stay whole

Result<std::vector<uint32_t>> checked_shares(const TensorShard& shard) {
  if (shard.count == 0 || shard.count > kMaxRanks || shard.rank >= shard.count)
    return fail(ErrorCode::invalid_argument,
                fmt::format("rank {} of {}, at most {} are possible", shard.rank, shard.count, kMaxRanks));
  if (shard.shares.empty()) return std::vector<uint32_t>(shard.count, 1);
  if (shard.shares.size() != shard.count || std::ranges::find(shard.shares, 0u) != shard.shares.end())
    return fail(ErrorCode::invalid_argument,
                fmt::format("{} shares for {} ranks, each of which needs one from 1 on", shard.shares.size(),
                            shard.count));
  return shard.shares;
}

// How far the rank with most for its share is from what would be fair.
double lopsidedness(std::span<const double> loads, Shares shares) {
  const double total_load = std::accumulate(loads.begin(), loads.end(), 0.0);
  const double total_shares = std::accumulate(shares.begin(), shares.end(), 0.0);
  double most = 0;
  for (size_t rank = 0; rank < loads.size(); ++rank) most = std::max(most, loads[rank] / shares[rank]);
  return total_load == 0 ? 1 : most * total_shares / total_load;
}

// The query heads of a layer over all ranks, and the kv heads that each reads.
struct HeadShares {
  std::vector<Slice> heads, kv_heads;

  double slowest(const AttentionSpec& spec, Shares shares) const {
    double slowest = 0;
    for (size_t rank = 0; rank < shares.size(); ++rank) {
      // Matrices of [d, D]: query, output and perhaps a gate; key and value.
      const uint32_t matrices = heads[rank].count * (spec.gate.empty() ? 2 : 3) + kv_heads[rank].count * 2;
      slowest = std::max(slowest, static_cast<double>(matrices) / shares[rank]);
    }
    return slowest;
  }
};

class Divider {
 public:
  Divider(const formats::Checkpoint& checkpoint, uint32_t rank, Shares shares)
      : checkpoint_(checkpoint), rank_(rank), shares_(shares) {}

  Result<LayerShard> layer(const LayerSpec& spec) const {
    LayerShard shard;
    SHOAL_TRY_VOID(std::visit([&](const auto& mixer) { return divide_mixer(mixer, shard); }, spec.mixer));
    SHOAL_TRY_VOID(
        std::visit([&](const auto& feed_forward) { return divide_feed_forward(feed_forward, shard); },
                   spec.feed_forward));
    return shard;
  }

 private:
  // Heads of `head_size` columns of `output` that only go together.
  Result<uint32_t> heads_together(const TensorRef& output, uint32_t head_size) const {
    SHOAL_TRY(const uint32_t block, columns_together(checkpoint_, output));
    return block / std::gcd(block, head_size);
  }

  // By kv heads, each with its query heads; or by query heads, where that is clearly more even: then ranks
  // that read the same kv head each keep it.
  Result<> divide_mixer(const AttentionSpec& spec, LayerShard& shard) const {
    const uint32_t group = spec.query_heads / spec.kv_heads;
    SHOAL_TRY(const uint32_t together, heads_together(spec.output, spec.head_dim));
    HeadShares by_kv, by_query;
    by_kv.kv_heads = divide(spec.kv_heads, together / std::gcd(together, group), shares_);
    for (const Slice& kv : by_kv.kv_heads) by_kv.heads.push_back({kv.first * group, kv.count * group});
    by_query.heads = divide(spec.query_heads, together, shares_);
    for (const Slice& heads : by_query.heads) {
      const uint32_t first = heads.first / group, end = (heads.end() + group - 1) / group;
      by_query.kv_heads.push_back({first, heads.count == 0 ? 0 : end - first});
    }
    const bool divides_kv = by_kv.slowest(spec, shares_) <= 1.1 * by_query.slowest(spec, shares_);
    const HeadShares& chosen = divides_kv ? by_kv : by_query;
    shard.heads = chosen.heads[rank_];
    shard.kv_heads = chosen.kv_heads[rank_];
    return {};
  }

  Result<> divide_mixer(const LatentAttentionSpec& spec, LayerShard& shard) const {
    SHOAL_TRY(const uint32_t together, heads_together(spec.output, spec.value_dim));
    shard.heads = divide(spec.heads, together, shares_)[rank_];
    shard.kv_heads = {0, 0};
    return {};
  }

  // By key heads, each with its value heads; but in a tiled net those are not neighbours, and value heads are
  // divided while every rank has all key heads.
  Result<> divide_mixer(const DeltaNetSpec& spec, LayerShard& shard) const {
    const engine::DeltaNetOp& op = spec.op;
    SHOAL_TRY(const uint32_t together, heads_together(spec.output, op.value_dim));
    const uint32_t group = op.value_heads / op.key_heads;
    if (keeps_key_heads(op)) {
      shard.heads = divide(op.value_heads, together, shares_)[rank_];
      shard.kv_heads = {0, shard.heads.count == 0 ? 0 : op.key_heads};
      return {};
    }
    shard.kv_heads = divide(op.key_heads, together / std::gcd(together, group), shares_)[rank_];
    shard.heads = {shard.kv_heads.first * group, shard.kv_heads.count * group};
    return {};
  }

  // The width of a feed-forward over all ranks: whole panels of what makes it and whole blocks of `down`, or
  // blocks alone where panels are too few.
  static std::vector<Slice> divide_width(uint32_t width, uint32_t block, Shares shares) {
    const uint32_t panels = std::max(block, kPanelRows);
    const bool enough = (width + panels - 1) / panels >= shares.size();
    return divide(width, enough ? panels : block, shares);
  }

  Result<> divide_feed_forward(const DenseSpec& spec, LayerShard& shard) const {
    SHOAL_TRY(const uint32_t block, columns_together(checkpoint_, spec.down));
    shard.columns = divide_width(spec.width, block, shares_)[rank_];
    shard.experts = shard.shared_columns = {0, 0};
    return {};
  }

  Result<> divide_feed_forward(const MixtureSpec& spec, LayerShard& shard) const {
    uint32_t block = 1;
    for (const TensorRef& down : spec.down) {
      SHOAL_TRY(const uint32_t one, columns_together(checkpoint_, down));
      block = std::max(block, one);
    }
    const uint32_t experts = spec.router_op.expert_count;
    const std::vector<Slice> widths = divide_width(spec.width, block, shares_);
    std::vector<double> loads;
    for (const Slice& columns : widths) loads.push_back(columns.count);
    const bool stay_whole = experts >= 4 * shares_.size() && lopsidedness(loads, shares_) > kMostLopsided;
    shard.columns = stay_whole ? Slice{0, spec.width} : widths[rank_];
    shard.experts = stay_whole ? divide(experts, 1, shares_)[rank_] : Slice{0, experts};
    if (shard.columns.count == 0) shard.experts = {0, 0};
    // Of ranks that each hold columns of all experts, one adds what is added to their sum.
    const auto first = std::ranges::find_if(widths, [](const Slice& columns) { return columns.count != 0; });
    shard.adds_expert_bias = stay_whole || first - widths.begin() == rank_;
    shard.shared_columns = {0, 0};
    if (!spec.shared) return {};
    SHOAL_TRY(const uint32_t shared_block, columns_together(checkpoint_, spec.shared->down));
    shard.shared_columns = divide_width(spec.shared->width, shared_block, shares_)[rank_];
    return {};
  }

  const formats::Checkpoint& checkpoint_;
  uint32_t rank_;
  Shares shares_;
};

}  // namespace

Result<uint32_t> columns_together(const formats::Checkpoint& checkpoint, const TensorRef& ref) {
  const formats::TensorInfo* tensor = checkpoint.find(ref.name);
  if (!tensor) return fail(ErrorCode::malformed, fmt::format("tensor '{}' is missing", ref.name));
  const uint32_t block =
      tensor->scales ? tensor->group_columns : formats::type_info(tensor->type).block_values;
  const bool scattered =
      ref.columns.length != 0 && ref.columns.count > 1 && ref.columns.stride != ref.columns.length;
  const bool is_widened = ref.transposed || scattered || ref.columns.first % block != 0;
  return is_widened ? 1 : block;
}

std::vector<Slice> divide(uint32_t size, uint32_t granule, Shares shares) {
  const uint64_t granules = (uint64_t{size} + granule - 1) / granule;
  const uint64_t total = std::accumulate(shares.begin(), shares.end(), uint64_t{0});
  std::vector<uint64_t> counts(shares.size());
  std::vector<size_t> by_remainder(shares.size());
  std::iota(by_remainder.begin(), by_remainder.end(), size_t{0});
  uint64_t left = granules;
  for (size_t rank = 0; rank < shares.size(); ++rank) {
    counts[rank] = granules * shares[rank] / total;
    left -= counts[rank];
  }
  const auto remainder = [&](size_t rank) { return granules * shares[rank] % total; };
  std::ranges::sort(by_remainder, [&](size_t a, size_t b) {
    return remainder(a) != remainder(b) ? remainder(a) > remainder(b) : a < b;
  });
  for (size_t i = 0; i < left; ++i) ++counts[by_remainder[i]];
  if (granules >= shares.size()) {
    for (uint64_t& count : counts) {
      if (count != 0) continue;
      --*std::ranges::max_element(counts);
      count = 1;
    }
  }
  std::vector<Slice> slices;
  for (uint64_t first = 0; const uint64_t count : counts) {
    const uint64_t end = std::min<uint64_t>(size, first + count * granule);
    slices.push_back({static_cast<uint32_t>(first), static_cast<uint32_t>(end - first)});
    first = end;
  }
  return slices;
}

Result<ShardPlan> shard_plan(const DecoderSpec& spec, const formats::Checkpoint& checkpoint,
                             const TensorShard& shard) {
  SHOAL_TRY(const std::vector<uint32_t> shares, checked_shares(shard));
  const Divider divider(checkpoint, shard.rank, shares);
  ShardPlan plan;
  for (const LayerSpec& layer : spec.layers) {
    SHOAL_TRY(plan.layers.emplace_back(), divider.layer(layer));
  }
  const std::vector<Slice> head = divide(spec.vocabulary_size, kPanelRows, shares);
  for (const Slice& rows : head) plan.head_rows.push_back(rows.count);
  plan.own_head_rows = head[shard.rank];
  return plan;
}

}  // namespace shoal::model
