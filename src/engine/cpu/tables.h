// The tables that instruction set folders define. Only kernels.cpp decides which of them may run.
//
// Nothing but these getters may leave a unit compiled for an instruction set. Check:
//   nm -C kernels.cpp.o | grep -E ' [WVu] '   prints nothing
#pragma once

#include "engine/cpu/kernel_table.h"

namespace shoal::engine::cpu {

const Kernels& portable_kernels();
const Kernels& avx2_kernels();
const Kernels& avx2_vnni_kernels();  // those with AVX-VNNI
const Kernels& avx512_kernels();
const Kernels& amx_kernels();           // AVX-512 lanes and, for products, tiles
const Kernels& neon_kernels();          // every AArch64 processor
const Kernels& neon_dotprod_kernels();  // those with FEAT_DotProd
const Kernels& neon_i8mm_kernels();     // those with FEAT_I8MM too

}  // namespace shoal::engine::cpu
