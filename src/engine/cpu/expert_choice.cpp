#include "engine/cpu/expert_choice.h"

#include <algorithm>
#include <limits>
#include <vector>

namespace shoal::engine::cpu {
namespace {

constexpr float kLowest = -std::numeric_limits<float>::infinity();

float comparable(float key) {
  return key == key ? key : kLowest;
}

// The best so far, best first. Offer candidates by ascending index: among equals the first stays ahead.
class Best {
 public:
  explicit Best(std::span<uint32_t> chosen) : chosen_(chosen), keys_(chosen.size()) {}

  void offer(uint32_t index, float key) {
    size_t place = count_;
    if (count_ == chosen_.size()) {
      if (!(key > keys_.back())) return;
      --place;
    } else {
      ++count_;
    }
    for (; place > 0 && key > keys_[place - 1]; --place) {
      keys_[place] = keys_[place - 1];
      chosen_[place] = chosen_[place - 1];
    }
    keys_[place] = key;
    chosen_[place] = index;
  }

 private:
  std::span<uint32_t> chosen_;
  std::vector<float> keys_;
  size_t count_ = 0;
};

float group_score(RouterOp::GroupScore kind, std::span<const float> keys) {
  float first = kLowest, second = kLowest;
  for (float given : keys) {
    float key = comparable(given);
    if (key > first) {
      second = first;
      first = key;
    } else if (key > second) {
      second = key;
    }
  }
  bool sum = kind == RouterOp::GroupScore::top_two_sum && keys.size() > 1;
  return sum ? comparable(first + second) : first;
}

}  // namespace

void choose_experts(const RouterOp& op, std::span<const float> keys, std::span<uint32_t> chosen) {
  Best best(chosen);
  if (op.group_count <= 1 || op.used_groups >= op.group_count) {
    for (uint32_t expert = 0; expert < keys.size(); ++expert) best.offer(expert, comparable(keys[expert]));
    return;
  }
  const size_t group_size = keys.size() / op.group_count;
  std::vector<uint32_t> groups(op.used_groups);
  Best best_groups(groups);
  for (uint32_t group = 0; group < op.group_count; ++group) {
    best_groups.offer(group, group_score(op.group_score, keys.subspan(group * group_size, group_size)));
  }
  std::ranges::sort(groups);  // so that experts are offered by ascending index
  for (uint32_t group : groups) {
    for (size_t i = 0; i < group_size; ++i) {
      size_t expert = group * group_size + i;
      best.offer(static_cast<uint32_t>(expert), comparable(keys[expert]));
    }
  }
}

void weigh_experts(const RouterOp& op, std::span<const float> scores, std::span<const uint32_t> chosen,
                   std::span<float> weights) {
  float sum = 0;
  for (size_t i = 0; i < chosen.size(); ++i) {
    weights[i] = scores[chosen[i]];
    sum += weights[i];
  }
  for (float& weight : weights) {
    if (op.normalise) weight /= sum + op.normalise_epsilon;
    weight *= op.scale;
  }
}

}  // namespace shoal::engine::cpu
