// Measuring this machine, keeping the figures, and whose figures count.
#include "serving/probe.h"

#include <fstream>
#include <gtest/gtest.h>

#include "base/file.h"
#include "engine/cpu/kernels.h"
#include "serving/machine_survey.h"

namespace shoal::serving {
namespace {

MachineFigures some_figures() {
  return {12.5e9, 3e11, {{"q8", 3e11, 12.5e9}, {"k", 2.5e11, 11e9}}};
}

MachineIdentity some_machine() {
  return {.cpu = "a CPU", .threads = 8, .memory_bytes = 33ull << 30, .isa = "avx2", .version = "0.1.0"};
}

class MachineCache : public ::testing::Test {
 protected:
  MachineCache() { std::filesystem::remove_all(directory); }
  ~MachineCache() override { std::filesystem::remove_all(directory); }
  void store() { ASSERT_TRUE(store_figures(directory, some_machine(), some_figures()).has_value()); }
  std::string stored() const { return *read_text_file(directory / "machine.json", 1 << 20); }
  void overwrite(const std::string& text) const { std::ofstream(directory / "machine.json") << text; }

  const std::filesystem::path directory = std::filesystem::path(testing::TempDir()) / "shoal-machine";
};

TEST(Probe, MeasuresMemoryAndEveryClassOfWeights) {
  const Result<MachineFigures> figures = measure_machine(2, "");
  ASSERT_TRUE(figures.has_value()) << figures.error().text();
  EXPECT_GT(figures->decode_bytes_per_second, 1e8);
  ASSERT_FALSE(figures->weight_rates.empty());
  EXPECT_EQ(figures->weight_rates[0].weights, "q8");
  EXPECT_EQ(figures->weight_rates[0].prefill_flops_per_second, figures->prefill_flops_per_second);
  for (const cluster::WeightRate& rate : figures->weight_rates) {
    EXPECT_GT(rate.prefill_flops_per_second, 1e7) << rate.weights;
    EXPECT_GT(rate.decode_bytes_per_second, 1e7) << rate.weights;
    EXPECT_LE(rate.decode_bytes_per_second, figures->decode_bytes_per_second) << rate.weights;
  }
}

TEST(Probe, RefusesInstructionsThatDoNotExist) {
  const Result<MachineFigures> figures = measure_machine(1, "abacus");
  ASSERT_FALSE(figures.has_value());
  EXPECT_NE(figures.error().message.find("abacus"), std::string::npos);
}

TEST(Probe, EveryTypeOfWeightsHasAClass) {
  EXPECT_EQ(weight_class(formats::TensorType::q6_k), "k");
  EXPECT_EQ(weight_class(formats::TensorType::affine4), "q4");
  EXPECT_EQ(weight_class(formats::TensorType::e8m0), "");
  for (uint32_t type = 0; type < formats::kTensorTypeCount; ++type)
    if (formats::TensorType{static_cast<uint8_t>(type)} != formats::TensorType::e8m0) {
      EXPECT_NE(weight_class(formats::TensorType{static_cast<uint8_t>(type)}), "") << type;
    }
}

TEST_F(MachineCache, FiguresOfTheSameMachineAreFoundAgain) {
  EXPECT_FALSE(load_figures(directory, some_machine()).has_value());
  store();
  const auto found = load_figures(directory, some_machine());
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(to_text(to_json(*found)), to_text(to_json(some_figures())));
}

TEST_F(MachineCache, FiguresOfAnotherMachineDoNotCount) {
  store();
  MachineIdentity other = some_machine();
  other.cpu = "another CPU";
  EXPECT_FALSE(load_figures(directory, other).has_value());
  other = some_machine();
  other.threads = 4;
  EXPECT_FALSE(load_figures(directory, other).has_value());
  other = some_machine();
  other.memory_bytes *= 2;
  EXPECT_FALSE(load_figures(directory, other).has_value());
  other = some_machine();
  other.isa = "avx512";
  EXPECT_FALSE(load_figures(directory, other).has_value());
  other = some_machine();
  other.version = "0.2.0";
  EXPECT_FALSE(load_figures(directory, other).has_value());
  other = some_machine();
  other.memory_bytes += 1 << 20;  // the system kept less for itself
  EXPECT_TRUE(load_figures(directory, other).has_value());
}

TEST_F(MachineCache, DamagedFilesCountAsNone) {
  store();
  const std::string good = stored();
  for (size_t length = 0; length < good.size(); length += 7) {
    overwrite(good.substr(0, length));
    EXPECT_FALSE(load_figures(directory, some_machine()).has_value()) << length;
  }
  for (const char* text : {"[]", "{}", R"({"machine": 1, "figures": 2})", "\xff\xfe"}) {
    overwrite(text);
    EXPECT_FALSE(load_figures(directory, some_machine()).has_value()) << text;
  }
  MachineFigures wrong = some_figures();
  wrong.decode_bytes_per_second = 0;
  ASSERT_TRUE(store_figures(directory, some_machine(), wrong).has_value());
  EXPECT_FALSE(load_figures(directory, some_machine()).has_value());
}

TEST_F(MachineCache, ADirectoryThatCannotBeWrittenIsAnError) {
  EXPECT_FALSE(store_figures("/proc/shoal", some_machine(), some_figures()).has_value());
}

TEST(MachineSurvey, ChildrenThatDoNotMeasureAreErrors) {
  const std::atomic<bool> go_on = false, given_up = true;
  const auto missing = measure_in_child("/nowhere/shoal", 1, "", go_on);
  ASSERT_FALSE(missing.has_value());
  const auto silent = measure_in_child("/bin/sh", 1, "", go_on);
  ASSERT_FALSE(silent.has_value());
  EXPECT_EQ(silent.error().code, ErrorCode::internal);
  const auto cancelled = measure_in_child("/bin/sh", 1, "", given_up);
  ASSERT_FALSE(cancelled.has_value());
  EXPECT_EQ(cancelled.error().code, ErrorCode::cancelled);
}

TEST_F(MachineCache, AMachineThatWasMeasuredIsNotMeasuredAgain) {
  const unsigned threads = 2;
  ASSERT_TRUE(store_figures(directory, MachineIdentity::here(threads, ""), some_figures()).has_value());
  boost::asio::io_context io;
  MachineSurvey survey(io, {.data_directory = directory, .executable = "/nowhere/shoal", .threads = threads});
  survey.start([](const MachineFigures&) { FAIL() << "measured"; });
  ASSERT_TRUE(survey.figures().has_value());
  bool done = false;
  survey.when_done([&] { done = true; });
  EXPECT_TRUE(done);
}

TEST_F(MachineCache, WhatWaitsGoesOnWhenMeasuringFails) {
  boost::asio::io_context io;
  MachineSurvey survey(io, {.data_directory = directory, .executable = "/bin/sh", .again = true});
  survey.start([](const MachineFigures&) { FAIL() << "measured"; });
  bool done = false;
  survey.when_done([&] { done = true; });
  EXPECT_FALSE(done);
  io.run_for(std::chrono::seconds(20));
  EXPECT_TRUE(done);
  EXPECT_FALSE(survey.figures().has_value());
}

}  // namespace
}  // namespace shoal::serving
