#include "base/system.h"

#include <unistd.h>

#include <cstdlib>

namespace shoal {

std::string host_name() {
  char text[256] = {};
  if (::gethostname(text, sizeof(text) - 1) != 0 || text[0] == '\0') return "localhost";
  std::string name = text;
  return name.substr(0, name.find('.'));
}

std::filesystem::path data_directory() {
  if (const char* home = std::getenv("XDG_DATA_HOME"); home && *home) return std::filesystem::path(home) / "shoal";
  const char* home = std::getenv("HOME");
  return std::filesystem::path(home && *home ? home : "/tmp") / ".local" / "share" / "shoal";
}

}  // namespace shoal
