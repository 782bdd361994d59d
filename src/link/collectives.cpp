#include "link/collectives.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <fmt/format.h>
#include <functional>
#include <numeric>

#include "base/assert.h"

namespace shoal::link {
namespace {

// The part of `whole` that round `round` of chunks carries; empty behind its end.
ByteView chunk_of(ByteView whole, uint64_t round, size_t chunk_bytes) {
  if (round * chunk_bytes >= whole.size()) return {};
  return whole.subspan(round * chunk_bytes)
      .first(std::min<size_t>(chunk_bytes, whole.size() - round * chunk_bytes));
}

// Where the slice of `rank` begins among `count` values.
size_t slice_begin(size_t count, uint32_t rank, uint32_t ranks) {
  return count / ranks * rank + std::min<size_t>(rank, count % ranks);
}

constexpr size_t kLanes = 16;  // a fixed number, so that compilers use vectors at every level

void add(float* __restrict sum, const float* __restrict left, const float* __restrict right, size_t count) {
  size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) sum[i + lane] = left[i + lane] + right[i + lane];
  }
  for (; i < count; ++i) sum[i] = left[i] + right[i];
}

void add_to(float* __restrict sum, const float* __restrict values, size_t count) {
  size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) sum[i + lane] += values[i + lane];
  }
  for (; i < count; ++i) sum[i] += values[i];
}

}  // namespace

// What goes to and comes from each rank, cut into rounds of a chunk. Empty: nothing does.
struct Collectives::Step {
  Stage stage;
  std::array<ByteView, kMaxGroupRanks> to{};
  std::array<size_t, kMaxGroupRanks> from_bytes{};
  // Uses round_ when all of a round has come; `offset` of it in each rank's bytes.
  std::function<void(size_t offset)> arrived = {};
};

Collectives::Collectives(std::vector<Link*> peers, CollectiveOptions options)
    : peers_(std::move(peers)), options_(options), round_(peers_.size()) {
  SHOAL_ASSERT(!peers_.empty() && peers_.size() <= kMaxGroupRanks);
  SHOAL_ASSERT(std::ranges::count(peers_, nullptr) == 1);
  SHOAL_ASSERT(options_.chunk_bytes >= 4 && options_.chunk_bytes % 4 == 0);
  rank_ = static_cast<uint32_t>(std::ranges::find(peers_, nullptr) - peers_.begin());
}

Result<> Collectives::all_reduce(std::span<float> values, TimePoint deadline) {
  if (failure_) return std::unexpected(*failure_);
  ++number_;
  const uint32_t ranks = rank_count();
  if (ranks == 1 || values.empty()) return {};
  const ByteView bytes = std::as_bytes(values);
  if (bytes.size() <= (ranks == 2 ? options_.whole_sum_bytes_of_two : options_.whole_sum_bytes)) {
    Step step{.stage = Stage::sum_whole};
    step.to.fill(bytes);
    step.from_bytes.fill(bytes.size());
    step.arrived = [&](size_t offset) { sum(values, offset); };
    return finish(exchange(step, deadline));
  }
  auto slice = [&](uint32_t rank) {
    size_t begin = slice_begin(values.size(), rank, ranks);
    return values.subspan(begin, slice_begin(values.size(), rank + 1, ranks) - begin);
  };
  Step scatter{.stage = Stage::sum_slices};
  Step gather{.stage = Stage::gather};
  for (uint32_t rank = 0; rank < ranks; ++rank) {
    scatter.to[rank] = std::as_bytes(slice(rank));
    scatter.from_bytes[rank] = slice(rank_).size_bytes();
    gather.to[rank] = std::as_bytes(slice(rank_));
    gather.from_bytes[rank] = slice(rank).size_bytes();
  }
  scatter.arrived = [&](size_t offset) { sum(slice(rank_), offset); };
  gather.arrived = [&](size_t offset) {
    for (uint32_t rank = 0; rank < ranks; ++rank) put(rank, std::as_writable_bytes(slice(rank)), offset);
  };
  auto outcome = exchange(scatter, deadline);
  if (outcome) outcome = exchange(gather, deadline);
  return finish(std::move(outcome));
}

Result<> Collectives::all_gather(std::span<const float> mine, std::span<float> all,
                                 std::span<const uint32_t> counts, TimePoint deadline) {
  if (failure_) return std::unexpected(*failure_);
  SHOAL_ASSERT(counts.size() == rank_count() && mine.size() == counts[rank_]);
  SHOAL_ASSERT(std::reduce(counts.begin(), counts.end(), size_t{0}) == all.size());
  ++number_;
  Step step{.stage = Stage::gather};
  std::array<std::span<std::byte>, kMaxGroupRanks> places;
  for (size_t rank = 0, begin = 0; rank < counts.size(); begin += counts[rank++]) {
    places[rank] = std::as_writable_bytes(all.subspan(begin, counts[rank]));
    step.to[rank] = std::as_bytes(mine);
    step.from_bytes[rank] = places[rank].size();
  }
  if (!mine.empty()) std::memmove(places[rank_].data(), mine.data(), mine.size_bytes());
  step.arrived = [&](size_t offset) {
    for (uint32_t rank = 0; rank < rank_count(); ++rank) put(rank, places[rank], offset);
  };
  return finish(exchange(step, deadline));
}

Result<> Collectives::broadcast(uint32_t root, std::span<std::byte> bytes, TimePoint deadline) {
  if (failure_) return std::unexpected(*failure_);
  SHOAL_ASSERT(root < rank_count());
  ++number_;
  Step step{.stage = Stage::broadcast};
  if (root == rank_) {
    step.to.fill(bytes);
  } else {
    step.from_bytes[root] = bytes.size();
  }
  step.arrived = [&](size_t offset) { put(root, bytes, offset); };
  return finish(exchange(step, deadline));
}

// Round by round, a round sent ahead of the one received. That is enough to keep the Links busy, and it
// bounds what waits in them: whoever waits for a frame of this round waits for one that was given to its Link
// before, and every frame before that one has been taken, so there is credit for it at any window.
Result<> Collectives::exchange(const Step& step, TimePoint deadline) {
  size_t longest = 0;
  for (uint32_t rank = 0; rank < rank_count(); ++rank) {
    if (rank != rank_) longest = std::max({longest, step.to[rank].size(), step.from_bytes[rank]});
  }
  const uint64_t rounds = (longest + options_.chunk_bytes - 1) / options_.chunk_bytes;
  for (uint64_t round = 0; round < rounds; ++round) {
    if (round == 0) SHOAL_TRY_VOID(send_round(step, 0, deadline));
    if (round + 1 < rounds) SHOAL_TRY_VOID(send_round(step, round + 1, deadline));
    SHOAL_TRY_VOID(receive_round(step, round, deadline));
    step.arrived(round * options_.chunk_bytes);
  }
  return {};
}

uint64_t Collectives::tag(const Step& step, uint64_t round) const {
  return static_cast<uint64_t>(step.stage) << 56 | (round & 0xff'ffff) << 32 | number_;
}

// To the next rank first, so that not everybody sends to rank 0 at once.
Result<> Collectives::send_round(const Step& step, uint64_t round, TimePoint deadline) {
  for (uint32_t i = 1; i < rank_count(); ++i) {
    uint32_t rank = (rank_ + i) % rank_count();
    ByteView chunk = chunk_of(step.to[rank], round, options_.chunk_bytes);
    if (chunk.empty()) continue;
    SHOAL_TRY(Buffer buffer, peers_[rank]->allocate(chunk.size()));
    std::memcpy(buffer.data(), chunk.data(), chunk.size());
    SHOAL_TRY_VOID(peers_[rank]->send({options_.channel, tag(step, round), std::move(buffer)}, deadline));
  }
  return {};
}

Result<> Collectives::receive_round(const Step& step, uint64_t round, TimePoint deadline) {
  std::array<bool, kMaxGroupRanks> missing{};
  unsigned left = 0;
  for (uint32_t rank = 0; rank < rank_count(); ++rank) {
    round_[rank] = Buffer();
    missing[rank] = rank != rank_ && step.from_bytes[rank] > round * options_.chunk_bytes;
    left += missing[rank] ? 1 : 0;
  }
  // Looks at all Links by turns for a while; a Link that is waited for looks only at itself.
  const TimePoint look_until = std::chrono::steady_clock::now() + options_.look;
  while (left > 1 && std::chrono::steady_clock::now() < look_until) {
    for (uint32_t rank = 0; rank < rank_count(); ++rank) {
      if (!missing[rank]) continue;
      SHOAL_TRY(bool came, receive_from(step, round, rank, TimePoint{}));
      missing[rank] = !came;
      left -= came ? 1 : 0;
    }
  }
  for (uint32_t rank = 0; rank < rank_count(); ++rank) {
    if (!missing[rank]) continue;
    SHOAL_TRY(bool came, receive_from(step, round, rank, deadline));
    if (!came) {
      return fail(ErrorCode::timeout, fmt::format("rank {} sent nothing in time", rank),
                  "it may be slow or stuck");
    }
  }
  return {};
}

// False: nothing there at the deadline.
Result<bool> Collectives::receive_from(const Step& step, uint64_t round, uint32_t rank, TimePoint deadline) {
  SHOAL_TRY(std::optional<Frame> frame, peers_[rank]->receive(options_.channel, deadline));
  if (!frame) return false;
  size_t due = std::min<size_t>(options_.chunk_bytes, step.from_bytes[rank] - round * options_.chunk_bytes);
  if (frame->step != tag(step, round) || frame->payload.size() != due) {
    return fail(ErrorCode::malformed,
                fmt::format("rank {} sent {} bytes of step {:016x} where {} of {:016x} were due", rank,
                            frame->payload.size(), frame->step, due, tag(step, round)));
  }
  round_[rank] = std::move(frame->payload);
  return true;
}

// Adds what came to our own part of it, in the order of the ranks.
void Collectives::sum(std::span<float> values, size_t offset_bytes) const {
  constexpr size_t kBlock = 1024;
  const size_t offset = offset_bytes / sizeof(float);
  if (offset >= values.size()) return;  // our slice is the shorter one
  const std::span<float> own =
      values.subspan(offset).first(std::min(options_.chunk_bytes / sizeof(float), values.size() - offset));
  auto source = [&](uint32_t rank) {
    return rank == rank_ ? own.data() : reinterpret_cast<const float*>(round_[rank].data());
  };
  alignas(64) std::array<float, kBlock> total;
  for (size_t begin = 0; begin < own.size(); begin += kBlock) {
    const size_t count = std::min(kBlock, own.size() - begin);
    add(total.data(), source(0) + begin, source(1) + begin, count);
    for (uint32_t rank = 2; rank < rank_count(); ++rank) {
      add_to(total.data(), source(rank) + begin, count);
    }
    std::memcpy(own.data() + begin, total.data(), count * sizeof(float));
  }
}

// Copies what came from a rank to its place.
void Collectives::put(uint32_t rank, std::span<std::byte> place, size_t offset) const {
  ByteView came = round_[rank].view();
  if (!came.empty()) std::memcpy(place.data() + offset, came.data(), came.size());
}

// An Error here is the end for everybody.
Result<> Collectives::finish(Result<> outcome) {
  std::ranges::for_each(round_, [](Buffer& buffer) { buffer = Buffer(); });
  if (outcome) return outcome;
  Error error = std::move(outcome).error();
  error.message = fmt::format("collective {} of {} ranks: {}", number_, rank_count(), error.message);
  failure_ = error;
  for (Link* peer : peers_) {
    if (peer != nullptr) peer->abort();
  }
  return std::unexpected(std::move(error));
}

}  // namespace shoal::link
