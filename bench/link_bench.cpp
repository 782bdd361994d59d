// link_bench [--short]: what Links reach between two processes of this machine, over TCP and over shared
// memory, one line of JSON a figure; bench/run link judges them. Both processes spin, each on a core of its
// own where there are two; what else runs on the machine shows in the load average that is printed with them.
#include <cstdlib>
#include <fmt/format.h>
#include <string_view>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

#include "base/cores.h"
#include "figures.h"
#include "link/collectives.h"
#include "link/tcp_link.h"

namespace shoal::bench {
namespace {

using link::Buffer;
using link::Link;

constexpr Duration kPatience = std::chrono::seconds(60);

struct Size {
  const char* name;
  size_t bytes;
  unsigned rounds;
};
constexpr Size kMessages[] = {
    {"8 KB", 8 << 10, 20'000}, {"64 KB", 64 << 10, 10'000}, {"1 MB", 1 << 20, 1000}, {"16 MB", 16 << 20, 60}};
constexpr Size kSums[] = {{"16 KB", 16 << 10, 20'000}, {"64 KB", 64 << 10, 10'000}, {"1 MB", 1 << 20, 1000}};
constexpr Size kStream = {"bandwidth", 4 << 20, 150};

void expect(const Result<>& done) {
  if (!done) give_up(done.error().message);
}

link::Frame receive(Link& link) {
  auto frame = need(link.receive(0));
  return std::move(*frame);
}

void send(Link& link, Buffer payload) {
  expect(link.send({0, 0, std::move(payload)}));
}

// One of the two processes. Both run the same rounds; the first one measures.
class Side {
 public:
  Side(Link& own_link, uint32_t own_rank, unsigned divisor)
      : link_(own_link), rank_(own_rank), divisor_(divisor) {}

  void run() {
    for (const Size& size : kMessages) messages(size);
    stream();
    for (const Size& size : kSums) sums(size);
  }

 private:
  // A frame goes to and fro; half of the time is one way.
  void messages(const Size& size) {
    std::vector<double> times;
    Buffer buffer = need(link_.allocate(size.bytes));
    std::memset(buffer.data(), 1, buffer.size());
    for (unsigned i = 0; i < rounds(size); ++i) {
      const double start = seconds();
      if (rank_ == 0) send(link_, std::move(buffer));
      buffer = receive(link_).payload;
      if (rank_ == 1) send(link_, std::move(buffer));
      times.push_back((seconds() - start) / 2 * 1e6);
    }
    report(fmt::format("one way, {}", size.name), times, {});
  }

  void stream() {
    const double start = seconds();
    for (unsigned i = 0; i < rounds(kStream); ++i) {
      if (rank_ == 0) {
        send(link_, need(link_.allocate(kStream.bytes)));
      } else {
        receive(link_);
      }
    }
    if (rank_ == 1) return send(link_, Buffer());
    receive(link_);
    const double bytes = static_cast<double>(kStream.bytes) * rounds(kStream);
    print({.name = fmt::format("{}: bandwidth, frames of 4 MB", link_.kind()),
           .value = bytes / (seconds() - start) / 1e9,
           .unit = "GB/s"});
  }

  void sums(const Size& size) {
    std::vector<Link*> peers(2, nullptr);
    peers[1 - rank_] = &link_;
    link::Collectives group(peers);
    std::vector<float> values(size.bytes / sizeof(float));
    std::vector<double> times;
    for (unsigned i = 0; i < rounds(size); ++i) {
      std::fill(values.begin(), values.end(), 1.0F);
      const double start = seconds();
      expect(group.all_reduce(values));
      times.push_back((seconds() - start) * 1e6);
    }
    std::optional<double> goal;
    if (size.bytes == 16 << 10) goal = link_.kind() == "shm" ? 5 : 10;
    report(fmt::format("all-reduce of 2 ranks, {}", size.name), times, goal);
  }

  void report(const std::string& what, const std::vector<double>& times, std::optional<double> goal) const {
    if (rank_ != 0) return;
    print({.name = fmt::format("{}: {}, p50", link_.kind(), what),
           .value = median(times),
           .unit = "us",
           .goal = goal,
           .at_most = true});
    print({.name = fmt::format("{}: {}, calmest tenth", link_.kind(), what),
           .value = quantile(times, 0.1),
           .unit = "us"});
  }

  unsigned rounds(const Size& size) const { return std::max(3u, size.rounds / divisor_); }

  Link& link_;
  uint32_t rank_;
  unsigned divisor_;
};

void run_side(Result<std::unique_ptr<Link>> made, uint32_t rank, unsigned divisor) {
  std::unique_ptr<Link> link = need(std::move(made));
  std::thread([&] {
    const auto cores = usable_cores();
    if (cores.size() > 1) stay_on_core(cores[rank]);  // this thread alone
    Side(*link, rank, divisor).run();
  }).join();
  expect(link->close(std::chrono::steady_clock::now() + kPatience));
}

void run_kind(bool shared_memory, unsigned divisor) {
  link::LinkOptions options;
  options.spin = milliseconds(2);
  options.shared_memory = shared_memory;
  auto listener = need(link::TcpLinkListener::open({"127.0.0.1"}));
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  const pid_t child = ::fork();
  if (child == 0) {
    const auto address = need(SocketAddress::parse("127.0.0.1", listener.port()));
    run_side(link::connect_tcp_link({address}, {"bench", 1, "", 1, 0}, deadline, options), 1, divisor);
    ::_exit(0);
  }
  run_side(listener.accept({"bench", 1, "", 0, 1}, deadline, options), 0, divisor);
  int status = 0;
  if (::waitpid(child, &status, 0) != child || status != 0) give_up("the other process failed");
}

}  // namespace
}  // namespace shoal::bench

int main(int count, char** words) {
  using namespace shoal::bench;
  const unsigned divisor = count > 1 && std::string_view(words[1]) == "--short" ? 20 : 1;
  double load = 0;
  ::getloadavg(&load, 1);
  print({.name = "machine: load average before", .value = load, .unit = "runnable"});
  run_kind(false, divisor);
  run_kind(true, divisor);
}
