// The last keys that ended, so that a message repeated late does not begin them again. Bounded.
#pragma once

#include <cstddef>
#include <deque>
#include <set>

namespace shoal::serving {

template <class Key>
class RecentKeys {
 public:
  void add(const Key& key) {
    if (!known_.insert(key).second) return;
    order_.push_back(key);
    if (order_.size() <= kRemembered) return;
    known_.erase(order_.front());
    order_.pop_front();
  }
  bool contains(const Key& key) const { return known_.contains(key); }

 private:
  static constexpr size_t kRemembered = 4096;
  std::set<Key> known_;
  std::deque<Key> order_;
};

}  // namespace shoal::serving
