// CRC-32C (Castagnoli; RFC 3720 appendix B.4): the checksum of every frame. Uses the processor's instruction
// where there is one (SSE4.2 on x86-64, the CRC extension on ARM), decided at run time; else a table.
#pragma once

#include <cstdint>

#include "base/bytes.h"

namespace shoal::link {

uint32_t crc32c(ByteView bytes);
uint32_t crc32c_table(ByteView bytes);  // the portable reference, for tests

}  // namespace shoal::link
