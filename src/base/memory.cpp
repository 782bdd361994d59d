#include "base/memory.h"

#include <array>
#include <cmath>
#include <fmt/format.h>
#include <sys/mman.h>
#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "base/cores.h"

namespace shoal {
namespace {

constexpr size_t kHugePageBytes = 2 << 20;

// Fresh pages go to all memory nodes in turn, so that every thread reads from all of them at once, wherever it
// runs: docs/decisions/0006-threads-and-memory.md. Refusals are ignored: the pages are then where the thread is
// that first writes to them.
void spread_over_memory_nodes([[maybe_unused]] void* begin, [[maybe_unused]] size_t bytes) {
#ifdef __linux__
  constexpr int kInterleave = 3;  // MPOL_INTERLEAVE
  constexpr unsigned kMostNodes = 1024;
  static const std::vector<unsigned> nodes = memory_nodes();
  if (nodes.size() < 2 || nodes.back() >= kMostNodes) return;
  std::array<unsigned long, kMostNodes / 64> mask{};
  for (const unsigned node : nodes) mask[node / 64] |= 1UL << node % 64;
  ::syscall(SYS_mbind, begin, bytes, kInterleave, mask.data(), nodes.back() + 2UL, 0);
#endif
}

}  // namespace

Result<HugeBuffer> HugeBuffer::allocate(size_t bytes, std::string_view what) {
  HugeBuffer buffer;
  if (bytes == 0) return buffer;
  auto refused = [&] {
    return fail(ErrorCode::out_of_memory, fmt::format("{}: cannot allocate {}", what, format_bytes(bytes)),
                "use a smaller context, a smaller model, or more nodes");
  };
  if (bytes > SIZE_MAX - 2 * kHugePageBytes) return refused();
  // Small buffers do not deserve a huge page each; large ones are rounded up so that the kernel can use them
  // throughout.
  size_t granule = bytes >= kHugePageBytes ? kHugePageBytes : 4096;
  size_t mapped = (bytes + granule - 1) / granule * granule;
  size_t padded = mapped + (granule == kHugePageBytes ? kHugePageBytes : 0);
  void* raw = ::mmap(nullptr, padded, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (raw == MAP_FAILED) return refused();
  auto begin = reinterpret_cast<uintptr_t>(raw);
  uintptr_t aligned = (begin + granule - 1) / granule * granule;
  if (aligned != begin) ::munmap(raw, aligned - begin);
  if (size_t tail = begin + padded - (aligned + mapped); tail != 0)
    ::munmap(reinterpret_cast<void*>(aligned + mapped), tail);
#ifdef MADV_HUGEPAGE
  if (granule == kHugePageBytes) ::madvise(reinterpret_cast<void*>(aligned), mapped, MADV_HUGEPAGE);
#endif
  if (granule == kHugePageBytes) spread_over_memory_nodes(reinterpret_cast<void*>(aligned), mapped);
  buffer.data_ = reinterpret_cast<std::byte*>(aligned);
  buffer.size_ = bytes;
  buffer.mapped_ = mapped;
  return buffer;
}

HugeBuffer::~HugeBuffer() {
  if (data_) ::munmap(data_, mapped_);
}

std::string format_bytes(uint64_t bytes) {
  constexpr std::array<const char*, 5> kUnits = {"B", "KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 1024 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  return unit == 0 || value >= 100 ? fmt::format("{:.0f} {}", value, kUnits[unit])
                                   : fmt::format("{:.1f} {}", value, kUnits[unit]);
}

Result<uint64_t> parse_bytes(std::string_view text) {
  auto refused = [&] {
    return fail(ErrorCode::invalid_argument, fmt::format("'{}' is not a size", text),
                "write e.g. 512MiB, 8G or a number of bytes");
  };
  // By hand: libc++ has no from_chars for floating point before version 20.
  double value = 0, divisor = 1;
  const std::string_view number = text.substr(0, text.find_first_not_of("0123456789."));
  const size_t point = number.find('.');
  for (size_t i = 0; i < number.size(); ++i) {
    if (i == point) continue;
    if (number[i] == '.') return refused();
    value = value * 10 + (number[i] - '0');
    if (i > point) divisor *= 10;
  }
  value /= divisor;
  if (number.empty() || number == "." || !std::isfinite(value)) return refused();
  std::string_view suffix = text.substr(number.size());
  while (!suffix.empty() && suffix.front() == ' ') suffix.remove_prefix(1);
  double scale = 1;
  if (!suffix.empty() && suffix != "B" && suffix != "b") {
    size_t power = std::string_view("kmgt").find(static_cast<char>(suffix.front() | 0x20));
    std::string_view rest = suffix.substr(1);
    if (power == std::string_view::npos ||
        !(rest.empty() || rest == "iB" || rest == "B" || rest == "ib" || rest == "b" || rest == "i"))
      return refused();
    scale = std::pow(1024.0, static_cast<double>(power + 1));
  }
  if (value * scale >= 9.0e18) return refused();
  return static_cast<uint64_t>(value * scale);
}

}  // namespace shoal
