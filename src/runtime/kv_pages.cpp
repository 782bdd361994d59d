#include "runtime/kv_pages.h"

#include <algorithm>
#include <numeric>

#include "base/assert.h"

namespace shoal::runtime {

PagePool::PagePool(uint32_t page_count) : pages_(page_count), free_(page_count) {
  std::iota(free_.rbegin(), free_.rend(), 0u);
}

std::optional<uint32_t> PagePool::allocate() {
  if (free_.empty()) return std::nullopt;
  const uint32_t page = free_.back();
  free_.pop_back();
  pages_[page].references = 1;
  return page;
}

void PagePool::add_reference(uint32_t page) {
  SHOAL_ASSERT(page < pages_.size() && pages_[page].references > 0);
  Page& entry = pages_[page];
  if (entry.cached && entry.references == 1) cached_only_ -= 1;
  entry.references += 1;
}

void PagePool::release(uint32_t page) {
  SHOAL_ASSERT(page < pages_.size() && pages_[page].references > 0);
  Page& entry = pages_[page];
  entry.references -= 1;
  if (entry.cached && entry.references == 1) cached_only_ += 1;
  if (entry.references > 0) return;
  SHOAL_ASSERT(!entry.cached);
  free_.push_back(page);
}

uint32_t PagePool::references(uint32_t page) const {
  SHOAL_ASSERT(page < pages_.size());
  return pages_[page].references;
}

void PagePool::set_cached(uint32_t page, bool cached) {
  Page& entry = pages_[page];
  SHOAL_ASSERT(entry.cached != cached);
  if (cached) {
    add_reference(page);
    entry.cached = true;
    return;
  }
  if (entry.references == 1) cached_only_ -= 1;
  entry.cached = false;
  release(page);
}

bool PrefixCache::TokenOrder::operator()(std::span<const int32_t> a, std::span<const int32_t> b) const {
  return std::ranges::lexicographical_compare(a, b);
}

PrefixCache::PrefixCache(PagePool& pool, uint32_t page_tokens)
    : pool_(pool), page_tokens_(page_tokens), nodes_(kRoots) {
  SHOAL_ASSERT(page_tokens > 0);
}

PrefixCache::~PrefixCache() {
  for (NodeId id = kRoots; id < nodes_.size(); ++id)
    if (!nodes_[id].tokens.empty()) pool_.set_cached(nodes_[id].page, false);
}

std::vector<uint32_t> PrefixCache::match(std::span<const int32_t> tokens, PrefixFamily family) {
  std::vector<uint32_t> pages;
  clock_ += 1;
  NodeId node = root(family);
  for (size_t first = 0; first + page_tokens_ <= tokens.size(); first += page_tokens_) {
    const auto child = nodes_[node].children.find(tokens.subspan(first, page_tokens_));
    if (child == nodes_[node].children.end()) break;
    node = child->second;
    touch(node);
    pool_.add_reference(nodes_[node].page);
    pages.push_back(nodes_[node].page);
  }
  return pages;
}

void PrefixCache::insert(std::span<const int32_t> tokens, std::span<const uint32_t> pages,
                         PrefixFamily family) {
  SHOAL_ASSERT(tokens.size() / page_tokens_ >= pages.size());
  clock_ += 1;
  NodeId node = root(family);
  for (size_t index = 0; index < pages.size(); ++index) {
    const auto key = tokens.subspan(index * page_tokens_, page_tokens_);
    const auto child = nodes_[node].children.find(key);
    if (child == nodes_[node].children.end()) {
      if (pool_.pages_[pages[index]].cached)
        return;  // the page is known under other tokens: a caller's slip, no hit
      node = add_child(node, key, pages[index]);
      continue;
    }
    node = child->second;
    touch(node);
    Node& known = nodes_[node];
    if (known.page == pages[index]) continue;
    if (pool_.references(known.page) > 1 || pool_.pages_[pages[index]].cached) return;
    pool_.set_cached(known.page, false);
    pool_.set_cached(pages[index], true);
    known.page = pages[index];
  }
}

uint32_t PrefixCache::evict(uint32_t count) {
  uint32_t evicted = 0;
  auto leaf = leaves_.begin();
  while (evicted < count && leaf != leaves_.end()) {
    // At most one leaf per running sequence is passed over.
    const NodeId node = leaf->second;
    if (pool_.references(nodes_[node].page) > 1) {
      ++leaf;
      continue;
    }
    remove_leaf(node);  // its parent may become the oldest leaf
    evicted += 1;
    leaf = leaves_.begin();
  }
  return evicted;
}

PrefixCache::NodeId PrefixCache::add_child(NodeId parent, std::span<const int32_t> tokens, uint32_t page) {
  NodeId id = static_cast<NodeId>(nodes_.size());
  if (unused_nodes_.empty()) {
    nodes_.emplace_back();
  } else {
    id = unused_nodes_.back();
    unused_nodes_.pop_back();
  }
  if (parent >= kRoots) leaves_.erase({nodes_[parent].last_used, parent});
  const auto key = nodes_[parent].children.emplace(std::vector(tokens.begin(), tokens.end()), id).first;
  nodes_[id] = {.parent = parent, .page = page, .last_used = clock_, .children = {}, .tokens = key->first};
  leaves_.emplace(clock_, id);
  pool_.set_cached(page, true);
  cached_pages_ += 1;
  return id;
}

void PrefixCache::remove_leaf(NodeId leaf) {
  Node& node = nodes_[leaf];
  SHOAL_ASSERT(leaf >= kRoots && node.children.empty());
  const NodeId parent = node.parent;
  leaves_.erase({node.last_used, leaf});
  pool_.set_cached(node.page, false);
  cached_pages_ -= 1;
  auto& siblings = nodes_[parent].children;
  siblings.erase(siblings.find(node.tokens));
  node = {};
  unused_nodes_.push_back(leaf);
  if (parent >= kRoots && siblings.empty()) leaves_.emplace(nodes_[parent].last_used, parent);
}

void PrefixCache::touch(NodeId node) {
  Node& entry = nodes_[node];
  if (entry.children.empty()) {
    leaves_.erase({entry.last_used, node});
    leaves_.emplace(clock_, node);
  }
  entry.last_used = clock_;
}

}  // namespace shoal::runtime
