// How much memory a piece of a test holds at its worst: counts every operator new of the test program.
#pragma once

#include <cstddef>

namespace shoal::formats {

// From its construction on. One at a time; other threads count too.
class AllocationGauge {
 public:
  AllocationGauge();
  size_t peak_bytes() const;  // the most that was held at once beyond what was held at the start

 private:
  size_t at_start_;
};

}  // namespace shoal::formats
