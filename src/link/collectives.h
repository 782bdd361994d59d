// Sums, gathers and broadcasts among the ranks of a tensor-parallel group, any 1 to 8 of them, each with a
// Link to every other. All ranks call the same operations in the same order with the same sizes. Sums are
// taken in the order of the ranks, element by element, so every rank holds the same bits, whichever algorithm
// ran and whatever arrived first. Small buffers go whole from everybody to everybody; large ones in slices
// that one rank each sums up and gives to the others. Any size works over any window.
//
// An Error ends the group: the Links are aborted, so that no rank waits for one that gave up, and every later
// call gives the same Error. Not thread-safe: one thread at a time.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/result.h"
#include "link/link.h"

namespace shoal::link {

inline constexpr uint32_t kMaxGroupRanks = 8;

struct CollectiveOptions {
  uint8_t channel = 3;               // of the Links, used by nothing else
  uint32_t chunk_bytes = 256 << 10;  // of a frame, a multiple of 4: transfers and sums overlap chunk by chunk
  // Sums up to this size go whole from everybody to everybody.
  uint32_t whole_sum_bytes_of_two = 512 << 10;
  uint32_t whole_sum_bytes = 32 << 10;  // of three ranks and more
  Duration look = microseconds(50);     // how long to look at all Links by turns before waiting for one
};

// Errors of all operations: those of Link, `timeout` past the deadline, and `malformed` when a rank sent what
// another operation, or another size, would.
class Collectives {
 public:
  // peers[r] is the Link to rank r; exactly one is null, at our own rank. The Links outlive this.
  explicit Collectives(std::vector<Link*> peers, CollectiveOptions options = {});

  uint32_t rank() const { return rank_; }
  uint32_t rank_count() const { return static_cast<uint32_t>(peers_.size()); }

  // values[i] becomes the sum over the ranks of theirs.
  Result<> all_reduce(std::span<float> values, TimePoint deadline = TimePoint::max());
  // `all` becomes the ranks' values one after the other. counts[r] values come from rank r: mine.size() is
  // counts[rank()], all.size() the sum of the counts. `mine` may lie in its place in `all`.
  Result<> all_gather(std::span<const float> mine, std::span<float> all, std::span<const uint32_t> counts,
                      TimePoint deadline = TimePoint::max());
  // `bytes` becomes what it is at `root`.
  Result<> broadcast(uint32_t root, std::span<std::byte> bytes, TimePoint deadline = TimePoint::max());

 private:
  enum class Stage : uint8_t { sum_whole = 1, sum_slices, gather, broadcast };
  struct Step;  // one pass of frames between all ranks

  Result<> exchange(const Step& step, TimePoint deadline);
  Result<> send_round(const Step& step, uint64_t round, TimePoint deadline);
  Result<> receive_round(const Step& step, uint64_t round, TimePoint deadline);
  Result<bool> receive_from(const Step& step, uint64_t round, uint32_t peer, TimePoint deadline);
  uint64_t tag(const Step& step, uint64_t round) const;
  void sum(std::span<float> values, size_t offset_bytes) const;
  void put(uint32_t rank, std::span<std::byte> place, size_t offset) const;
  Result<> finish(Result<> outcome);

  std::vector<Link*> peers_;
  const CollectiveOptions options_;
  uint32_t rank_ = 0;
  uint32_t number_ = 0;        // of the current operation, counted alike on all ranks
  std::vector<Buffer> round_;  // [rank] what came in this round
  std::optional<Error> failure_;
};

}  // namespace shoal::link
