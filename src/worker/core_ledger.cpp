#include "worker/core_ledger.h"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"

namespace shoal::worker {
namespace {

constexpr size_t kSlots = 64;
// A step that takes longer counts as over, for the others.
constexpr uint64_t kLeaseNs = 30'000'000'000;
constexpr uint64_t kMostThreads = 1024;

uint64_t steady_ns() {
  const auto since = std::chrono::steady_clock::now().time_since_epoch();
  return static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(since).count());
}

uint32_t key_of(std::span<const unsigned> cores) {
  uint32_t key = 0x811c9dc5u;
  for (const unsigned core : cores) key = (key ^ core) * 0x01000193u;
  return key;
}

bool is_alive(uint64_t owner) {
  const auto process = static_cast<pid_t>(owner >> 32);
  return process > 0 && (::kill(process, 0) == 0 || errno != ESRCH);
}

}  // namespace

CoreLedger::CoreLedger(const std::string& name, unsigned threads, std::span<const unsigned> cores)
    : threads_(threads), core_count_(static_cast<unsigned>(cores.size())), core_key_(key_of(cores)) {
  auto memory = SharedMemory::open(name, kSlots * sizeof(Slot));
  if (!memory) {
    log_info("worker", "cores are not shared out: {}", memory.error().text());
    return;
  }
  memory_ = *std::move(memory);
  take_slot();
}

CoreLedger::~CoreLedger() {
  if (mine_ == nullptr) return;
  mine_->busy_until_ns = 0;
  mine_->owner = 0;
}

std::span<CoreLedger::Slot> CoreLedger::slots() const {
  return {reinterpret_cast<Slot*>(memory_.bytes().data()), memory_.bytes().size() / sizeof(Slot)};
}

void CoreLedger::take_slot() {
  const uint64_t me = static_cast<uint64_t>(::getpid()) << 32 | core_key_;
  for (Slot& slot : slots()) {
    uint64_t owner = slot.owner;
    if (is_alive(owner) || !slot.owner.compare_exchange_strong(owner, me)) continue;
    slot.busy_until_ns = 0;
    slot.threads = threads_;
    mine_ = &slot;
    return;
  }
}

engine::ThreadShare CoreLedger::begin_step() {
  if (mine_ == nullptr) return {0, threads_};
  const uint64_t now = steady_ns();
  mine_->busy_until_ns = now + kLeaseNs;
  uint64_t wanted = 0, before = 0;  // threads, of all who are in a step, and of those whose slots come first
  for (Slot& slot : slots()) {
    if (&slot == mine_) {
      before = wanted;
      wanted += threads_;
      continue;
    }
    const uint64_t until = slot.busy_until_ns;
    if (until <= now || until > now + kLeaseNs || static_cast<uint32_t>(slot.owner) != core_key_) continue;
    wanted += std::clamp<uint64_t>(slot.threads, 1, kMostThreads);
  }
  if (wanted <= core_count_ || wanted == threads_) return {0, threads_};
  // Which threads they are matters where each thread has its core, that is, where there are as many.
  const auto first = static_cast<unsigned>(before * core_count_ / wanted);
  const auto end = static_cast<unsigned>((before + threads_) * core_count_ / wanted);
  const unsigned count = std::clamp(end - first, 1u, threads_);
  return {std::min(first, threads_ - count), count};
}

void CoreLedger::end_step() {
  if (mine_ != nullptr) mine_->busy_until_ns = 0;
}

}  // namespace shoal::worker
