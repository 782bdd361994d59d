// A ring of bytes in memory that two processes share: one writes, one reads. Each end keeps its own position
// to itself and checks what it reads of the other's, so a peer that scribbles over the ring can garble its
// own bytes and nothing else. An end that is about to sleep says so; the other is then told to ring its bell,
// whatever that is.
#pragma once

#include <atomic>
#include <cstdint>
#include <span>

#include "base/bytes.h"
#include "base/result.h"

namespace shoal::link {

// The first page of a ring; bytes follow. Each word has a cache line to itself.
struct RingControl {
  alignas(64) std::atomic<uint64_t> written;  // bytes since the start
  alignas(64) std::atomic<uint64_t> read;
  alignas(64) std::atomic<uint32_t> reader_sleeps;
  alignas(64) std::atomic<uint32_t> writer_sleeps;
};
static_assert(std::atomic<uint64_t>::is_always_lock_free && std::atomic<uint32_t>::is_always_lock_free);

inline constexpr size_t kRingControlBytes = 4096;

class RingWriter {
 public:
  // Page-aligned memory: the control page, and a power of two of bytes.
  explicit RingWriter(std::span<std::byte> memory);

  // Takes what there is room for, from the front; the reader sees it after publish(), or earlier. malformed:
  // the reader's position is impossible.
  Result<size_t> append(ByteView bytes);
  void publish();
  bool must_ring();          // the reader sleeps and there are bytes for it; told once
  Result<bool> may_sleep();  // false: there is room

 private:
  Result<size_t> room();

  RingControl& control_;
  std::span<std::byte> bytes_;
  uint64_t written_ = 0;
  uint64_t published_ = 0;
  uint64_t read_ = 0;  // as last seen
};

class RingReader {
 public:
  explicit RingReader(std::span<std::byte> memory);

  Result<size_t> available();            // malformed: the writer's position is impossible
  void read(std::span<std::byte> into);  // at most what is available
  bool must_ring();                      // the writer sleeps and has room now; told once
  Result<bool> may_sleep();              // false: there are bytes

 private:
  RingControl& control_;
  std::span<std::byte> bytes_;
  uint64_t read_ = 0;
  uint64_t written_ = 0;  // as last seen
};

}  // namespace shoal::link
