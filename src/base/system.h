// What this machine is: processor, cores, memory that may be used. Respects cgroups and affinity.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

namespace shoal {

std::string cpu_name();              // "AMD EPYC 9B14" or "unknown CPU"
std::string host_name();             // without domain; "localhost" when the system has none
bool cpu_has_crc32c();               // an instruction for CRC-32C that this build can use
struct ArmExtensions {
  bool dot_products = false;   // FEAT_DotProd
  bool int8_matrices = false;  // FEAT_I8MM
};
ArmExtensions arm_extensions();  // of an AArch64 processor; none on others
bool allow_tile_registers();         // asks for AMX's tiles for every thread of this process; false: never use them
unsigned usable_core_count();        // cores this process may run on, at least 1
uint64_t total_memory_bytes();       // of the machine or of our cgroup, whichever is less
uint64_t available_memory_bytes();   // what can be allocated now without swapping, likewise
std::filesystem::path executable_path();
std::filesystem::path data_directory();  // $XDG_DATA_HOME/shoal or ~/.local/share/shoal; not created here
uint64_t random_u64();               // from the operating system's generator

}  // namespace shoal
