// The numbers of whole models, for every fixture: against what transformers computed
// (tests/fixtures/README.md says how close is right), and the same bits for one and three stages on every
// instruction set of this machine.
//
// With SHOAL_WRITE_MODELS=FILE the table of docs/models.md is written there (tools/models-page does that).
#include <cstdlib>
#include <cstring>
#include <fmt/format.h>
#include <fstream>
#include <gtest/gtest.h>
#include <map>

#include "runtime/fixture_models.h"

namespace shoal::runtime {
namespace {

using engine::KvType;

// How far logits may be from the reference, in units of its standard deviation.
struct Tolerance {
  double max;
  double median;
  double rms;
};

constexpr double kAny = 1e9;

Tolerance tolerance_of(const FixtureCase& tested, KvType kv) {
  if (tested.compute == "quantised")  // int8 activations; one exchanged expert changes a position wholly
    return tested.mixture ? Tolerance{kAny, 0.5, 0.4} : Tolerance{0.45, 0.45, 0.06};
  switch (kv) {
    case KvType::f32:
      return {2e-3, 2e-3, 2e-3};
    case KvType::f16:
      return {0.06, 0.06, 0.01};
    case KvType::q8:
      break;
  }
  return tested.mixture ? Tolerance{kAny, 0.5, 0.4} : Tolerance{0.45, 0.45, 0.06};
}

// One line of docs/models.md.
struct Line {
  std::string compute;
  uint64_t bytes = 0;
  std::map<KvType, LogitError> errors;  // the largest over the prompts
  size_t greedy_equal = 0, greedy_total = 0;
};

std::map<std::string, Line>& lines() {
  static std::map<std::string, Line> all;
  return all;
}

void widen(LogitError& all, const LogitError& one) {
  all = {.max = std::max(all.max, one.max),
         .median = std::max(all.median, one.median),
         .rms = std::max(all.rms, one.rms)};
}

class Fixture : public testing::TestWithParam<FixtureCase> {
 protected:
  Fixture() : model_(open_model(GetParam().path)), expected_(GetParam().expected) {
    lines()[GetParam().name].compute = GetParam().compute;
    lines()[GetParam().name].bytes = model_.checkpoint.total_bytes();
  }

  LocalPipeline load(const LocalPipelineOptions& options) const {
    return must(LocalPipeline::load(model_.checkpoint, model_.spec, options));
  }

  LoadedModel model_;
  Expected expected_;
};

TEST_P(Fixture, LogitsAreAsCloseAsTheirArithmeticAllows) {
  for (const KvType kv : {KvType::f32, KvType::f16, KvType::q8}) {
    LocalPipeline pipeline = load(pipeline_options(kv));
    const Tolerance tolerance = tolerance_of(GetParam(), kv);
    ASSERT_EQ(expected_.prompts.size(), 3u);
    for (const Expected::Prompt& prompt : expected_.prompts) {
      if (kSanitized && prompt.name == "long") continue;
      const LogitError error =
          compare(expected_, prompt, logits_of(pipeline, prompt.tokens, prompt.tokens.size()));
      const std::string where = fmt::format("{}, KV type {}", prompt.name, static_cast<int>(kv));
      EXPECT_LE(error.max, tolerance.max) << where;
      EXPECT_LE(error.median, tolerance.median) << where;
      EXPECT_LE(error.rms, tolerance.rms) << where;
      widen(lines()[GetParam().name].errors[kv], error);
    }
  }
}

// The first token that differs from the reference may only do so where the reference's best two were closer
// than the arithmetic's error; what follows it is another text.
TEST_P(Fixture, GreedyTokensAreTheReferences) {
  const bool exact = GetParam().compute != "quantised";
  LocalPipeline pipeline = load(pipeline_options(exact ? KvType::f32 : KvType::f16));
  Line& line = lines()[GetParam().name];
  for (const Expected::Prompt& prompt : expected_.prompts) {
    if (kSanitized && prompt.name == "long") continue;
    const std::vector<int32_t> tokens = generate(pipeline, prompt.tokens, prompt.greedy.size());
    const auto first = static_cast<size_t>(std::ranges::mismatch(tokens, prompt.greedy).in1 - tokens.begin());
    line.greedy_equal += first;
    line.greedy_total += tokens.size();
    if (first == tokens.size()) continue;
    EXPECT_FALSE(exact) << prompt.name << ": token " << first;
    EXPECT_LT(prompt.margins[first], 2 * tolerance_of(GetParam(), KvType::f16).median * expected_.logit_std)
        << prompt.name << ": token " << first;
  }
}

TEST_P(Fixture, StagesAndInstructionSetsGiveTheSameBits) {
  const std::vector<int32_t>& tokens = expected_.prompts[kSanitized ? 1 : 2].tokens;
  LocalPipelineOptions options = pipeline_options(KvType::f16);
  options.isa = engine::cpu::Isa::portable;
  LocalPipeline portable = load(options);
  const std::vector<float> reference = logits_of(portable, tokens, tokens.size());
  for (const engine::cpu::Isa isa : engine::cpu::available_isas()) {
    for (const uint32_t stages : {1u, 3u}) {
      options.isa = isa;
      options.stages = stages;
      LocalPipeline pipeline = load(options);
      const std::vector<float> logits = logits_of(pipeline, tokens, tokens.size());
      EXPECT_TRUE(logits.size() == reference.size() &&
                  std::memcmp(logits.data(), reference.data(), logits.size() * sizeof(float)) == 0)
          << engine::cpu::to_string(isa) << ", " << stages << " stages";
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Models, Fixture, testing::ValuesIn(fixture_cases()), case_name);

// Writes the table after everything has run.
class TableWriter : public testing::Environment {
 public:
  void TearDown() override {
    const char* path = std::getenv("SHOAL_WRITE_MODELS");
    if (path == nullptr) return;
    std::ofstream out(path);
    out << "| fixture | weights | bytes | f32 KV: max | f16 KV: max | f16 KV: rms | q8 KV: median | q8 KV: "
           "rms | "
           "greedy tokens equal | allowed with f16 KV |\n"
           "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |\n";
    for (const FixtureCase& tested : fixture_cases()) {
      const Line& line = lines()[tested.name];
      const auto error = [&](KvType kv) {
        const auto place = line.errors.find(kv);
        return place == line.errors.end() ? LogitError{} : place->second;
      };
      const Tolerance tolerance = tolerance_of(tested, KvType::f16);
      out << fmt::format(
          "| {} | {} | {} | {:.1e} | {:.1e} | {:.1e} | {:.1e} | {:.1e} | {} of {} | {} |\n", tested.name,
          line.compute, line.bytes, error(KvType::f32).max, error(KvType::f16).max, error(KvType::f16).rms,
          error(KvType::q8).median, error(KvType::q8).rms, line.greedy_equal, line.greedy_total,
          tolerance.max == kAny ? fmt::format("median {}, rms {}", tolerance.median, tolerance.rms)
                                : fmt::format("max {}, rms {}", tolerance.max, tolerance.rms));
    }
  }
};

const testing::Environment* const kTableWriter = testing::AddGlobalTestEnvironment(new TableWriter);

}  // namespace
}  // namespace shoal::runtime
