// For fuzz targets whose work may be given up on (bridge/src/confined.rs): such a thread keeps for ever what
// it was started with, and whether the leak checker finds it reachable at the end is chance.
#pragma once

extern "C" [[gnu::used]] inline const char* __lsan_default_suppressions() {
  return "leak:shoal_bridge::confined::run\n";
}
