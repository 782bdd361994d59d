// Who uses which page of the KV cache, decided by the owner's scheduler alone; engines only see page numbers.
// Pure bookkeeping: PagePool counts the references to each page, PrefixCache remembers which tokens a full
// page was computed from, so that a sequence that starts with the same tokens need not compute them again.
//
// Tokens are compared, not their hashes: a wrong hit would be a wrong answer. Every operation takes time in
// proportion to the tokens or pages given (times a logarithm). Not thread-safe.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

namespace shoal::runtime {

class PagePool {
 public:
  explicit PagePool(uint32_t page_count);

  // A free page with one reference, the caller's; nullopt when there is none.
  std::optional<uint32_t> allocate();
  void add_reference(uint32_t page);
  void release(uint32_t page);  // the last reference frees it

  uint32_t page_count() const { return static_cast<uint32_t>(pages_.size()); }
  uint32_t free_pages() const { return static_cast<uint32_t>(free_.size()); }
  uint32_t references(uint32_t page) const;

 private:
  friend class PrefixCache;
  struct Page {
    uint32_t references = 0;
    bool cached = false;  // one of the references is the prefix cache's
  };
  void set_cached(uint32_t page, bool cached);

  std::vector<Page> pages_;
  std::vector<uint32_t> free_;  // a stack, so that warm pages are used first
  uint32_t cached_only_ = 0;    // pages whose single reference is the prefix cache's
};

// Pages of different families share nothing, though their tokens be equal: a model that rotates long prompts
// by other frequencies makes other keys of the same tokens.
enum class PrefixFamily : uint8_t { usual, long_prompts };

// A radix tree per family, with one full page per node. Whoever holds a reference to a node's page holds
// references to the pages of all its ancestors, so pages that only the cache holds can always be evicted,
// leaves first.
class PrefixCache {
 public:
  // `pool` must outlive the cache.
  PrefixCache(PagePool& pool, uint32_t page_tokens);
  ~PrefixCache();
  PrefixCache(const PrefixCache&) = delete;
  PrefixCache& operator=(const PrefixCache&) = delete;

  // The pages of the longest known prefix of `tokens`, in whole pages. Each has a new reference: the
  // caller's.
  std::vector<uint32_t> match(std::span<const int32_t> tokens, PrefixFamily family = PrefixFamily::usual);

  // Remembers that pages[i] holds tokens [i * page_tokens, (i + 1) * page_tokens) of `tokens`, which has at
  // least that many; the caller holds a reference to each. A prefix that is known already keeps its page
  // while a sequence uses it (what follows is then not remembered) and takes the caller's otherwise.
  void insert(std::span<const int32_t> tokens, std::span<const uint32_t> pages,
              PrefixFamily family = PrefixFamily::usual);

  // Gives up to `count` pages back to the pool, least recently used first; returns how many.
  uint32_t evict(uint32_t count);

  uint32_t cached_pages() const { return cached_pages_; }
  uint32_t evictable_pages() const { return pool_.cached_only_; }  // held by nobody but the cache

 private:
  using NodeId = uint32_t;
  struct TokenOrder {
    using is_transparent = void;
    bool operator()(std::span<const int32_t> a, std::span<const int32_t> b) const;
  };
  struct Node {
    NodeId parent = 0;
    uint32_t page = 0;
    uint64_t last_used = 0;
    std::map<std::vector<int32_t>, NodeId, TokenOrder> children;  // by the tokens of their page
    std::span<const int32_t> tokens;                              // the key in the parent's map
  };

  static_assert(std::is_nothrow_move_constructible_v<Node>);  // `tokens` stays valid when nodes_ grows
  static constexpr NodeId kRoots = 2;                         // one per family, the first nodes

  static NodeId root(PrefixFamily family) { return static_cast<NodeId>(family); }

  NodeId add_child(NodeId parent, std::span<const int32_t> tokens, uint32_t page);
  void remove_leaf(NodeId leaf);
  void touch(NodeId node);

  PagePool& pool_;
  uint32_t page_tokens_;
  std::vector<Node> nodes_;  // roots have no page
  std::vector<NodeId> unused_nodes_;
  std::set<std::pair<uint64_t, NodeId>> leaves_;  // by time of last use
  uint64_t clock_ = 0;                            // counts uses
  uint32_t cached_pages_ = 0;
};

}  // namespace shoal::runtime
