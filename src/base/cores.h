// Which cores this process has, how they are grouped by memory, and how to stay on one.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

namespace shoal {

// The numbers of the cores that this process may run on, ascending; never empty. macOS does not let a process
// choose: there they are 0, 1, ...
std::vector<unsigned> usable_cores();
// The calling thread only runs on this core from now on. False: the system does not let it.
bool stay_on_core(unsigned core);
// The numbers of the NUMA nodes that have memory, ascending; {0} where there is no telling.
std::vector<unsigned> memory_nodes();

// "0-3,8,10-11" (how Linux writes sets of cores and memory nodes) -> {0, 1, 2, 3, 8, 10, 11}; nullopt for what
// is no such list or names numbers over 8191.
std::optional<std::vector<unsigned>> parse_number_list(std::string_view text);
// "200000 100000" (cpu.max of a cgroup: microseconds of processor time in a period) -> 2 cores, rounded up;
// nullopt without a limit ("max 100000") and for what is no such line.
std::optional<unsigned> parse_core_quota(std::string_view text);

}  // namespace shoal
