// `shoal doctor`: what on this machine could keep a node from working, and what to do about it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace shoal::cli {

struct DoctorOptions {
  uint16_t port = 8000;
  std::filesystem::path data_directory;
  bool json = false;
};

enum class CheckStatus { ok, warn, fail };

struct Check {
  std::string name;
  CheckStatus status = CheckStatus::ok;
  std::string message;
  std::string hint;  // what to do; empty when ok
};

std::vector<Check> run_checks(const DoctorOptions& options);

// Prints the checks; 1 when one of them fails.
int run_doctor(const DoctorOptions& options);

}  // namespace shoal::cli
