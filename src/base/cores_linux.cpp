#ifdef __linux__
#include <sched.h>

#include "base/cores.h"
#include "base/file.h"

namespace shoal {

std::vector<unsigned> usable_cores() {
  std::vector<unsigned> cores;
  cpu_set_t set;
  CPU_ZERO(&set);
  if (::sched_getaffinity(0, sizeof(set), &set) == 0) {
    for (unsigned core = 0; core < CPU_SETSIZE; ++core) {
      if (CPU_ISSET(core, &set)) cores.push_back(core);
    }
  }
  if (cores.empty()) cores.push_back(0);
  return cores;
}

bool stay_on_core(unsigned core) {
  if (core >= CPU_SETSIZE) return false;
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(core, &set);
  return ::sched_setaffinity(0, sizeof(set), &set) == 0;
}

std::vector<unsigned> memory_nodes() {
  const auto text = read_text_file("/sys/devices/system/node/has_memory", 4096);
  return (text ? parse_number_list(*text) : std::nullopt).value_or(std::vector<unsigned>{0});
}

}  // namespace shoal
#endif
