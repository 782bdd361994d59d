// The kernels of AMX as compiled for the processor, run on processors without it: each of their tile
// instructions raises SIGILL, and the handler decodes it and does what it says to the modelled tiles. So the
// assembly, its operands and what the compiler made around it are tested wherever AVX-512 is.
#include <csignal>

#if defined(REG_RIP)  // an x86-64 system whose signal handlers see registers by these names
#include <gtest/gtest.h>
#include <ucontext.h>

#include "engine/cpu/amx/model_tiles.h"
#include "engine/cpu/tables.h"
#include "engine/cpu/test_support.h"

namespace shoal::engine::cpu {
namespace {

int trapped_count = 0;

enum class Prefix : uint8_t { none, x66, f3, f2 };

// A VEX instruction of map 0F38 with a ModRM byte. Register numbers are those of the tiles we use, 0-7, and
// of addresses with all sixteen.
struct Instruction {
  Prefix prefix;
  uint8_t opcode;
  bool has_memory;
  uint8_t field, third;  // ModRM.reg and VEX.vvvv
  uint8_t operand;       // ModRM.rm when there is no memory
  uint64_t address;      // base and displacement
  uint64_t index;        // register times its scale
  size_t bytes;
};

uint64_t register_value(const ucontext_t& context, unsigned number) {
  constexpr int kOrder[] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                            REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
  return static_cast<uint64_t>(context.uc_mcontext.gregs[kOrder[number]]);
}

// Fills address and index from ModRM, SIB and displacement; returns where the instruction ends.
const uint8_t* decode_memory(const ucontext_t& context, const uint8_t* at, uint8_t extension,
                             Instruction& instruction) {
  const uint8_t modrm = *at++;
  const unsigned mode = modrm >> 6;
  unsigned base = modrm & 7;
  bool no_base = mode == 0 && base == 5;  // then relative to the next instruction
  const bool relative = no_base;
  if (base == 4) {
    const uint8_t sib = *at++;
    const unsigned index = (sib >> 3 & 7) | ((extension & 0x40) == 0 ? 8 : 0);
    if (index != 4) instruction.index = register_value(context, index) << (sib >> 6);
    base = sib & 7;
    no_base = mode == 0 && base == 5;
  }
  if (!no_base) {
    instruction.address = register_value(context, base | ((extension & 0x20) == 0 ? 8 : 0));
  }
  if (mode == 1) instruction.address += static_cast<uint64_t>(int64_t{static_cast<int8_t>(*at++)});
  if (mode == 2 || no_base) {
    int32_t displacement;
    std::memcpy(&displacement, at, 4);
    at += 4;
    instruction.address += static_cast<uint64_t>(int64_t{displacement});
  }
  if (relative) instruction.address += reinterpret_cast<uint64_t>(at);
  return at;
}

// Traps for good at what no kernel of ours should contain.
Instruction decode(const ucontext_t& context) {
  const auto* start = reinterpret_cast<const uint8_t*>(context.uc_mcontext.gregs[REG_RIP]);
  const uint8_t extension = start[1], control = start[2];
  require(start[0] == 0xc4 && (extension & 0x1f) == 2);  // three bytes of VEX, map 0F38
  require((control & 0x84) == 0);                        // W0, 128 bits
  const uint8_t* at = start + 4;
  Instruction instruction = {.prefix = static_cast<Prefix>(control & 3),
                             .opcode = start[3],
                             .has_memory = *at >> 6 != 3,
                             .field = static_cast<uint8_t>(*at >> 3 & 7),
                             .third = static_cast<uint8_t>(~control >> 3 & 15),
                             .operand = static_cast<uint8_t>(*at & 7),
                             .address = 0,
                             .index = 0,
                             .bytes = 0};
  at = instruction.has_memory ? decode_memory(context, at, extension, instruction) : at + 1;
  instruction.bytes = static_cast<size_t>(at - start);
  return instruction;
}

void execute(const Instruction& it) {
  auto* memory = reinterpret_cast<uint8_t*>(it.address);
  if (it.opcode == 0x49 && it.prefix == Prefix::none && it.has_memory && it.field == 0) {  // ldtilecfg
    TileShapes shapes;
    std::memcpy(&shapes, memory + it.index, sizeof(shapes));
    return model_configure(shapes);
  }
  if (it.opcode == 0x49 && it.prefix == Prefix::none && it.field == 0 && it.operand == 0) {
    return model_release();
  }
  if (it.opcode == 0x49 && it.prefix == Prefix::f2 && !it.has_memory) return model_zero(it.field);
  if (it.opcode == 0x4b && it.prefix == Prefix::f2 && it.has_memory) {
    return model_load(it.field, memory, it.index);
  }
  if (it.opcode == 0x4b && it.prefix == Prefix::f3 && it.has_memory) {
    return model_store(it.field, memory, it.index);
  }
  require(it.opcode == 0x5e && !it.has_memory);
  if (it.prefix == Prefix::f2) return model_dot<int8_t>(it.field, it.operand, it.third);
  require(it.prefix == Prefix::f3);
  model_dot<uint8_t>(it.field, it.operand, it.third);
}

void on_illegal_instruction(int, siginfo_t*, void* opaque) {
  auto& context = *static_cast<ucontext_t*>(opaque);
  const Instruction instruction = decode(context);
  execute(instruction);
  context.uc_mcontext.gregs[REG_RIP] += static_cast<greg_t>(instruction.bytes);
  ++trapped_count;
}

class AmxTrapTest : public ::testing::TestWithParam<WeightKind> {
 protected:
  void SetUp() override {
    if (!select_kernels(Isa::avx512).has_value()) GTEST_SKIP() << "this machine lacks AVX-512";
    if (select_kernels(Isa::amx).has_value()) GTEST_SKIP() << "this machine has AMX itself";
    struct sigaction action = {};
    action.sa_sigaction = on_illegal_instruction;
    action.sa_flags = SA_SIGINFO;
    ASSERT_EQ(sigaction(SIGILL, &action, &before_), 0);
    trapped_count = 0;
  }
  void TearDown() override {
    if (!IsSkipped()) sigaction(SIGILL, &before_, nullptr);
  }

 private:
  struct sigaction before_ = {};
};

TEST_P(AmxTrapTest, InstructionsForTheProcessorGivePortableBits) {
  Random random(31);
  uint32_t row_counts[] = {1, 6, 16, 17, 31, 40, 135};
  for (uint32_t row_count : row_counts) {
    const uint32_t columns = (1 + row_count % 3) * GetParam().block_columns();
    PackedMatrix matrix = pack(random_matrix(GetParam(), 40, columns, random).matrix());
    std::vector<float> input = awkward_values(size_t{row_count} * columns, random);
    EXPECT_TRUE(same_bits(product(reference_kernels(), matrix, input, row_count),
                          product(amx_kernels(), matrix, input, row_count)))
        << row_count << " rows of " << columns;
    const bool has_tiles = matrix.activation_format() != ActivationFormat::f32;
    if (row_count >= 16) {
      EXPECT_EQ(trapped_count > 0, has_tiles);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Types, AmxTrapTest, ::testing::ValuesIn(all_kinds()),
                         [](const auto& test) { return name_of(test.param); });

}  // namespace
}  // namespace shoal::engine::cpu
#endif
