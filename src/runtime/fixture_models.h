// For tests: the fixture models with their expected logits, and a sequence driven through a pipeline step by
// step.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <gtest/gtest.h>
#include <stdexcept>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/json.h"
#include "formats/safetensors.h"
#include "model/decoder_spec.h"
#include "runtime/local_pipeline.h"

namespace shoal::runtime {

template <class T>
T must(Result<T> result) {
  if (!result) throw std::runtime_error(result.error().text());
  return *std::move(result);
}

struct LoadedModel {
  formats::Checkpoint checkpoint;
  model::DecoderSpec spec;
};

inline LoadedModel open_model(const std::string& path_in_project) {
  formats::Checkpoint checkpoint =
      must(formats::Checkpoint::open(std::filesystem::path(SHOAL_SOURCE_DIR) / path_in_project));
  model::DecoderSpec spec = must(model::read_decoder_spec(checkpoint));
  return {std::move(checkpoint), std::move(spec)};
}

// Sanitized programs are slow, and look for other faults than wrong numbers: they run less of the same.
#if defined(__SANITIZE_ADDRESS__)
inline constexpr bool kSanitized = true;
#elif defined(__has_feature)
inline constexpr bool kSanitized = __has_feature(address_sanitizer);
#else
inline constexpr bool kSanitized = false;
#endif

inline constexpr const char* kDemoModel = "models/demo/shoal-demo-q8_0.gguf";

// A line of tests/fixtures/manifest.json; paths from the project's root.
struct FixtureCase {
  std::string name;
  std::string path = {};
  std::string expected = {};  // directory of expected.json
  std::string compute = {};   // "float", "bf16-weights" or "quantised"
  bool mixture = false;       // of experts
};

inline void PrintTo(const FixtureCase& tested, std::ostream* out) {
  *out << tested.path;
}

inline std::string case_name(const testing::TestParamInfo<FixtureCase>& info) {
  std::string name = info.param.name;
  for (char& letter : name)
    if (std::isalnum(static_cast<unsigned char>(letter)) == 0) letter = '_';
  return name;
}

inline std::vector<FixtureCase> fixture_cases() {
  const std::filesystem::path fixtures = std::filesystem::path(SHOAL_SOURCE_DIR) / "tests/fixtures";
  const Json manifest =
      must(parse_json(must(read_text_file(fixtures / "manifest.json", 1 << 20)), "manifest"));
  std::vector<FixtureCase> cases;
  for (const Json& entry : manifest.as_array()) {
    const auto text = [&](const char* field) { return std::string(entry.at(field).as_string()); };
    cases.push_back({.name = text("name"),
                     .path = "tests/fixtures/" + text("path"),
                     .expected = "tests/fixtures/" + text("expected"),
                     .compute = text("compute"),
                     .mixture = entry.at("moe").as_bool()});
  }
  return cases;
}

inline LocalPipelineOptions pipeline_options(engine::KvType kv = engine::KvType::f32,
                                             uint32_t page_count = 64) {
  LocalPipelineOptions options;
  options.kv = {.type = kv, .page_tokens = 16, .page_count = page_count, .state_slots = 16};
  options.threads = 1;
  return options;
}

inline std::vector<int32_t> test_tokens(size_t count, uint32_t vocabulary) {
  std::vector<int32_t> tokens(count);
  for (size_t i = 0; i < count; ++i) tokens[i] = static_cast<int32_t>((3 + 37 * i) % vocabulary);
  return tokens;
}

// Feeds one sequence to a pipeline that nobody else uses. Its pages lie scattered.
class SequenceDriver {
 public:
  // `prompt_tokens` 0: the first rows are the whole prompt.
  SequenceDriver(SequenceId id, uint32_t first_page, uint32_t page_stride = 1, size_t prompt_tokens = 0)
      : id_(id), next_page_(first_page), page_stride_(page_stride), prompt_tokens_(prompt_tokens) {}

  // Adds `tokens` as the next rows of `step`.
  void add_rows(Step& step, std::span<const int32_t> tokens, bool samples, uint32_t page_tokens,
                const SamplingParameters& sampling = {.temperature = 0}) {
    const size_t prompt_tokens = prompt_tokens_ == 0 ? tokens.size() : prompt_tokens_;
    if (context_ == 0 && pages_ == 0)
      step.started.push_back(
          {.sequence = id_, .prompt_tokens = static_cast<uint32_t>(prompt_tokens), .sampling = sampling});
    StepSequence rows{.sequence = id_,
                      .context_tokens = context_,
                      .row_count = static_cast<uint32_t>(tokens.size()),
                      .samples = samples,
                      .first_page_index = pages_};
    context_ += rows.row_count;
    for (; uint64_t{pages_} * page_tokens < context_; ++pages_, next_page_ += page_stride_)
      rows.pages.push_back(next_page_);
    step.sequences.push_back(std::move(rows));
    step.token_ids.insert(step.token_ids.end(), tokens.begin(), tokens.end());
  }

 private:
  SequenceId id_;
  uint32_t next_page_;
  uint32_t page_stride_;
  size_t prompt_tokens_;
  uint32_t context_ = 0;
  uint32_t pages_ = 0;
};

// Logits [tokens, V] of a whole prompt, read in chunks.
inline std::vector<float> logits_of(LocalPipeline& pipeline, std::span<const int32_t> tokens, size_t chunk) {
  static SequenceId next_id = 1;
  SequenceDriver driver(next_id++, 0, 1, tokens.size());
  std::vector<float> logits;
  for (size_t first = 0; first < tokens.size(); first += chunk) {
    Step step;
    driver.add_rows(step, tokens.subspan(first, std::min(chunk, tokens.size() - first)), false, 16);
    const std::span<const float> rows = must(pipeline.run_rows(step));
    logits.insert(logits.end(), rows.begin(), rows.end());
  }
  return logits;
}

// `count` tokens after `prompt`, through sampling.
inline std::vector<int32_t> generate(LocalPipeline& pipeline, std::span<const int32_t> prompt, size_t count,
                                     const SamplingParameters& sampling = {.temperature = 0}) {
  static SequenceId next_id = 1'000'000;
  SequenceDriver driver(next_id++, 0);
  std::vector<int32_t> answer;
  std::vector<int32_t> rows(prompt.begin(), prompt.end());
  while (answer.size() < count) {
    Step step;
    driver.add_rows(step, rows, true, 16, sampling);
    answer.push_back(must(pipeline.run(step)).at(0).sampled.token);
    rows = {answer.back()};
  }
  return answer;
}

// expected.json and expected.safetensors of a fixture.
class Expected {
 public:
  struct Prompt {
    std::string name;
    std::vector<int32_t> tokens;
    std::vector<size_t> positions;  // whose logits are stored
    std::vector<float> logits;      // [positions, V]
    std::vector<int32_t> greedy;
    std::vector<double> margins;  // of each greedy token, as logits
  };

  explicit Expected(const std::string& directory) {
    const std::filesystem::path path = std::filesystem::path(SHOAL_SOURCE_DIR) / directory;
    const JsonObject json =
        must(parse_json_object(must(read_text_file(path / "expected.json", 64 << 20)), "expected"));
    const MappedFile file = must(MappedFile::open(path / "expected.safetensors"));
    const auto tensors = must(formats::parse_safetensors(file.bytes()));
    logit_std = json.at("logit_std").to_number<double>();
    for (const Json& entry : json.at("prompts").as_array())
      prompts.push_back(read_prompt(entry.as_object(), tensors, file));
  }

  double logit_std = 0;
  std::vector<Prompt> prompts;

 private:
  template <class T>
  static std::vector<T> numbers(const Json& array) {
    std::vector<T> values;
    for (const Json& value : array.as_array()) values.push_back(value.to_number<T>());
    return values;
  }

  static Prompt read_prompt(const JsonObject& json, const std::vector<formats::SafetensorsTensor>& tensors,
                            const MappedFile& file);
};

inline Expected::Prompt Expected::read_prompt(const JsonObject& json,
                                              const std::vector<formats::SafetensorsTensor>& tensors,
                                              const MappedFile& file) {
  Prompt prompt{.name = std::string(json.at("name").as_string()),
                .tokens = numbers<int32_t>(json.at("ids")),
                .positions = numbers<size_t>(json.at("positions")),
                .logits = {},
                .greedy = numbers<int32_t>(json.at("greedy")),
                .margins = numbers<double>(json.at("greedy_margins"))};
  const auto tensor = std::ranges::find(tensors, std::string(json.at("logits_tensor").as_string()),
                                        &formats::SafetensorsTensor::name);
  if (tensor == tensors.end()) throw std::runtime_error("no logits for prompt " + prompt.name);
  prompt.logits.resize(tensor->bytes / sizeof(float));
  std::memcpy(prompt.logits.data(), file.bytes().subspan(tensor->offset).data(), tensor->bytes);
  return prompt;
}

struct LogitError {
  double max = 0;
  double median = 0;  // over positions, of the position's maximum
  double rms = 0;
};

// In units of logit_std, over the stored positions of `prompt`; `logits` is [tokens, V].
inline LogitError compare(const Expected& expected, const Expected::Prompt& prompt,
                          std::span<const float> logits) {
  const size_t vocabulary = logits.size() / prompt.tokens.size();
  std::vector<double> largest;
  double squares = 0;
  for (size_t row = 0; row < prompt.positions.size(); ++row) {
    largest.push_back(0);
    for (size_t token = 0; token < vocabulary; ++token) {
      const double got = static_cast<double>(logits[prompt.positions[row] * vocabulary + token]);
      const double want = static_cast<double>(prompt.logits[row * vocabulary + token]);
      const double difference = std::abs(got - want) / expected.logit_std;
      largest.back() = std::isnan(difference) ? 1e9 : std::max(largest.back(), difference);
      squares += difference * difference;
    }
  }
  std::ranges::sort(largest);
  return {.max = largest.back(),
          .median = largest[largest.size() / 2],
          .rms = std::sqrt(squares / static_cast<double>(prompt.logits.size()))};
}

}  // namespace shoal::runtime
