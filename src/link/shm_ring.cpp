#include "link/shm_ring.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/assert.h"

namespace shoal::link {
namespace {

// Published together: the reader copies one piece while the writer copies the next.
constexpr size_t kPieceBytes = 8 << 10;

RingControl& control_of(std::span<std::byte> memory) {
  SHOAL_ASSERT(memory.size() > kRingControlBytes && std::has_single_bit(memory.size() - kRingControlBytes));
  return *reinterpret_cast<RingControl*>(memory.data());
}

// How much of `bytes` lies in one piece behind `position` of the ring.
size_t contiguous(std::span<std::byte> ring, uint64_t position, size_t bytes) {
  return std::min<size_t>(bytes, ring.size() - (position & (ring.size() - 1)));
}

std::byte* at(std::span<std::byte> ring, uint64_t position) {
  return ring.data() + (position & (ring.size() - 1));
}

// Says that this end sleeps. The fence pairs with the one in must_ring(): of an end that looks for bytes
// after it said so and one that looks for sleepers after it moved bytes, one sees the other.
void say_asleep(std::atomic<uint32_t>& flag) {
  flag.store(1, std::memory_order_relaxed);
  std::atomic_thread_fence(std::memory_order_seq_cst);
}

bool asleep(const std::atomic<uint32_t>& flag) {
  std::atomic_thread_fence(std::memory_order_seq_cst);
  return flag.load(std::memory_order_relaxed) != 0;
}

}  // namespace

RingWriter::RingWriter(std::span<std::byte> memory)
    : control_(control_of(memory)), bytes_(memory.subspan(kRingControlBytes)) {}

Result<size_t> RingWriter::room() {
  const uint64_t read = control_.read.load(std::memory_order_acquire);
  // Neither back, nor beyond what it could see.
  if (read - read_ > published_ - read_) {
    return fail(ErrorCode::malformed, "the reader's position in shared memory is impossible");
  }
  read_ = read;
  return bytes_.size() - (written_ - read_);
}

Result<size_t> RingWriter::append(ByteView bytes) {
  size_t taken = 0;
  while (taken < bytes.size()) {
    size_t free = bytes_.size() - (written_ - read_);
    if (free < bytes.size() - taken) {
      SHOAL_TRY(free, room());
      if (free == 0) break;
    }
    size_t piece = contiguous(bytes_, written_, std::min({bytes.size() - taken, free, kPieceBytes}));
    std::memcpy(at(bytes_, written_), bytes.data() + taken, piece);
    written_ += piece;
    taken += piece;
    if (written_ - published_ >= kPieceBytes) publish();
  }
  return taken;
}

void RingWriter::publish() {
  if (published_ == written_) return;
  published_ = written_;
  control_.written.store(written_, std::memory_order_release);
}

bool RingWriter::must_ring() {
  return asleep(control_.reader_sleeps) && control_.reader_sleeps.exchange(0) != 0;
}

Result<bool> RingWriter::may_sleep() {
  say_asleep(control_.writer_sleeps);
  SHOAL_TRY(size_t free, room());
  return free == 0;
}

RingReader::RingReader(std::span<std::byte> memory)
    : control_(control_of(memory)), bytes_(memory.subspan(kRingControlBytes)) {}

Result<size_t> RingReader::available() {
  const uint64_t written = control_.written.load(std::memory_order_acquire);
  if (written - read_ > bytes_.size() || written - read_ < written_ - read_) {
    return fail(ErrorCode::malformed, "the writer's position in shared memory is impossible");
  }
  written_ = written;
  return written_ - read_;
}

void RingReader::read(std::span<std::byte> into) {
  SHOAL_ASSERT(into.size() <= written_ - read_);
  while (!into.empty()) {
    size_t piece = contiguous(bytes_, read_, into.size());
    std::memcpy(into.data(), at(bytes_, read_), piece);
    read_ += piece;
    into = into.subspan(piece);
  }
  control_.read.store(read_, std::memory_order_release);
}

// A writer that waits for room is left alone until there is enough to be worth waking for.
bool RingReader::must_ring() {
  if (written_ - read_ > bytes_.size() / 2) return false;
  return asleep(control_.writer_sleeps) && control_.writer_sleeps.exchange(0) != 0;
}

Result<bool> RingReader::may_sleep() {
  say_asleep(control_.reader_sleeps);
  SHOAL_TRY(size_t waiting, available());
  return waiting == 0;
}

}  // namespace shoal::link
