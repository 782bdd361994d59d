// The table of AMX: that of AVX-512 lanes with products over tiles where there are rows enough. Include after
// hardware_tiles.h or model_tiles.h, once.
#pragma once

#include "engine/cpu/amx/blocks_of_256.h"
#include "engine/cpu/amx/blocks_of_32.h"

namespace shoal::engine::cpu {
namespace {

// Products of float weights are the lanes' own, tile by tile, since their tiles may be fewer rows than ours.
template <PanelType type>
void multiply_floats(const MatrixTask& task) {
  if constexpr (kAmxRows % kTileRows == 0) return kTable.multiply[static_cast<size_t>(type)](task);
  constexpr uint32_t kPanels = 4;  // that stay near while the rows pass by
  for (uint32_t panel = task.first_panel; panel < task.end_panel; panel += kPanels) {
    for (uint32_t row = 0; row < task.row_count; row += kAmxRows) {
      MatrixTask part = task;
      part.first_panel = panel;
      part.end_panel = smaller(panel + kPanels, task.end_panel);
      multiply_with_lanes<type>(part, ActivationFormat::f32, row, smaller(kAmxRows, task.row_count - row));
    }
  }
}

constexpr auto at(PanelType type) {
  return static_cast<size_t>(type);
}

template <PanelType type, class Type>
constexpr void set_32(Kernels& table) {
  table.multiply[at(type)] = multiply_with_tiles<Product32<type, Type>>;
}
template <PanelType type, class Type>
constexpr void set_256(Kernels& table) {
  table.multiply[at(type)] = multiply_with_tiles<Product256<type, Type>>;
}

constexpr Kernels amx_table() {
  Kernels table = kTable;
  table.isa = Isa::amx;
  table.tile_rows = kAmxRows;
  table.prepare[static_cast<size_t>(ActivationFormat::f32)] = prepare_for_lanes<ActivationFormat::f32>;
  table.prepare[static_cast<size_t>(ActivationFormat::q8_32)] = prepare_tile_32;
  table.prepare[static_cast<size_t>(ActivationFormat::q8_256)] = prepare_tile_256;
  table.multiply[at(PanelType::f32)] = multiply_floats<PanelType::f32>;
  table.multiply[at(PanelType::f16)] = multiply_floats<PanelType::f16>;
  table.multiply[at(PanelType::bf16)] = multiply_floats<PanelType::bf16>;
  table.multiply[at(PanelType::f8)] = multiply_floats<PanelType::f8>;
  table.multiply[at(PanelType::mxfp4)] = multiply_floats<PanelType::mxfp4>;
  set_32<PanelType::q8_0, SymmetricTiles<EightBitCodes, 128>>(table);
  set_32<PanelType::q4_0, SymmetricTiles<FourBitCodes, 8>>(table);
  set_32<PanelType::q5_0, SymmetricTiles<FiveBitCodes, 16>>(table);
  set_32<PanelType::iq4_nl, SymmetricTiles<Iq4Codes, 128>>(table);
  set_32<PanelType::affine4_f16, AffineTiles<FourBitCodes, F16Scales>>(table);
  set_32<PanelType::affine4_bf16, AffineTiles<FourBitCodes, Bf16Scales>>(table);
  set_32<PanelType::affine4_f32, AffineTiles<FourBitCodes, F32Scales>>(table);
  set_32<PanelType::affine5_f16, AffineTiles<FiveBitCodes, F16Scales>>(table);
  set_32<PanelType::affine8_f16, AffineTiles<EightBitCodes, F16Scales>>(table);
  set_32<PanelType::affine8_bf16, AffineTiles<EightBitCodes, Bf16Scales>>(table);
  set_32<PanelType::affine8_f32, AffineTiles<EightBitCodes, F32Scales>>(table);
  set_256<PanelType::q2_k, Q2Planes>(table);
  set_256<PanelType::q3_k, Q3Planes>(table);
  set_256<PanelType::q4_k, NibblePlanes<false>>(table);
  set_256<PanelType::q5_k, NibblePlanes<true>>(table);
  set_256<PanelType::q6_k, Q6Planes>(table);
  set_256<PanelType::iq4_xs, Iq4Planes>(table);
  return table;
}

constexpr Kernels kAmxTable = amx_table();

}  // namespace
}  // namespace shoal::engine::cpu
