#include "formats/allocation_gauge.h"

#include <atomic>
#include <cstdlib>
#include <gtest/gtest.h>
#include <memory>
#include <new>
#include <vector>

namespace {

std::atomic<size_t> held_bytes = 0;
std::atomic<size_t> peak_held_bytes = 0;

// In front of each allocation, as large as the strictest alignment of plain new.
constexpr size_t kHeaderBytes = 16;

void* allocate(size_t bytes) noexcept {
  auto* block =
      bytes > SIZE_MAX - kHeaderBytes ? nullptr : static_cast<std::byte*>(std::malloc(bytes + kHeaderBytes));
  if (!block) return nullptr;
  *reinterpret_cast<size_t*>(block) = bytes;
  const size_t now = held_bytes += bytes;
  size_t peak = peak_held_bytes;
  while (now > peak && !peak_held_bytes.compare_exchange_weak(peak, now)) continue;
  return block + kHeaderBytes;
}

void release(void* pointer) noexcept {
  if (!pointer) return;
  auto* block = static_cast<std::byte*>(pointer) - kHeaderBytes;
  held_bytes -= *reinterpret_cast<size_t*>(block);
  std::free(block);
}

}  // namespace

void* operator new(size_t bytes) {
  if (void* block = allocate(bytes)) return block;
  throw std::bad_alloc();
}
void* operator new[](size_t bytes) {
  return operator new(bytes);
}
void* operator new(size_t bytes, const std::nothrow_t&) noexcept {
  return allocate(bytes);
}
void* operator new[](size_t bytes, const std::nothrow_t&) noexcept {
  return allocate(bytes);
}
void operator delete(void* pointer) noexcept {
  release(pointer);
}
void operator delete[](void* pointer) noexcept {
  release(pointer);
}
void operator delete(void* pointer, size_t) noexcept {
  release(pointer);
}
void operator delete[](void* pointer, size_t) noexcept {
  release(pointer);
}
void operator delete(void* pointer, const std::nothrow_t&) noexcept {
  release(pointer);
}
void operator delete[](void* pointer, const std::nothrow_t&) noexcept {
  release(pointer);
}

namespace shoal::formats {

AllocationGauge::AllocationGauge() : at_start_(held_bytes) {
  peak_held_bytes = at_start_;
}

size_t AllocationGauge::peak_bytes() const {
  return peak_held_bytes - at_start_;
}

namespace {

TEST(AllocationGauge, SeesThePeakAndNotTheSum) {
  const AllocationGauge gauge;
  for (int i = 0; i < 3; ++i) {
    std::vector<char> block(1'000'000);
    block[static_cast<size_t>(i)] = 1;
  }
  EXPECT_GE(gauge.peak_bytes(), 1'000'000u);
  EXPECT_LT(gauge.peak_bytes(), 1'100'000u);
}

}  // namespace
}  // namespace shoal::formats
