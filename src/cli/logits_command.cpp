#include "cli/logits_command.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <iterator>
#include <numeric>
#include <optional>
#include <span>

#include "base/limits.h"
#include "cli/error_line.h"
#include "formats/checkpoint.h"
#include "model/decoder_spec.h"
#include "runtime/local_pipeline.h"

namespace shoal::cli {

namespace {

constexpr uint32_t kPageTokens = 32;
constexpr runtime::SequenceId kSequence = 1;

Result<engine::KvType> parse_kv_type(std::string_view text) {
  if (text == "f32") return engine::KvType::f32;
  if (text == "f16") return engine::KvType::f16;
  if (text == "q8") return engine::KvType::q8;
  return fail(ErrorCode::invalid_argument, fmt::format("--kv '{}' is not a KV cache type", text),
              "one of f32, f16, q8");
}

Result<std::optional<engine::cpu::Isa>> parse_kernels(const std::string& name) {
  if (name.empty()) return std::optional<engine::cpu::Isa>();
  if (Result<engine::cpu::Isa> isa = engine::cpu::parse_isa(name)) return std::optional(*isa);
  return fail(ErrorCode::invalid_argument, fmt::format("--isa '{}' is not an instruction set", name),
              "one of portable, avx2, avx512, amx, neon");
}

Result<> check(const LogitsOptions& options) {
  if (options.positions != "all" && options.positions != "last")
    return fail(ErrorCode::invalid_argument, fmt::format("--positions '{}'", options.positions),
                "all or last");
  if (options.chunk == 0 || options.chunk > limits::kMaxStepRows)
    return fail(ErrorCode::invalid_argument,
                fmt::format("--chunk {} is outside 1 to {}", options.chunk, limits::kMaxStepRows));
  return {};
}

// Prints the logits of chosen positions as they come, since all of them may be more than memory holds.
class LogitsPrinter {
 public:
  explicit LogitsPrinter(const LogitsOptions& options) : json_(options.json) {}

  void print(size_t position, std::span<const float> logits) {
    line_.clear();
    auto out = std::back_inserter(line_);
    if (!json_) {
      print_best(position, logits);
    } else {
      fmt::format_to(out, "{}", rows_ == 0 ? "{\"logits\":[[" : ",[");
      for (size_t token = 0; token < logits.size(); ++token) {
        if (token > 0) line_ += ',';
        if (std::isfinite(logits[token])) {
          fmt::format_to(out, "{}", logits[token]);  // the shortest text that reads back as the same float
        } else {
          line_ += "null";
        }
      }
      line_ += ']';
    }
    rows_ += 1;
    std::fwrite(line_.data(), 1, line_.size(), stdout);
  }

  void finish() const {
    if (json_) fmt::print("]}}\n");
  }

 private:
  void print_best(size_t position, std::span<const float> logits) {
    std::vector<size_t> best(logits.size());
    std::iota(best.begin(), best.end(), size_t{0});
    const size_t shown = std::min<size_t>(5, best.size());
    std::ranges::partial_sort(best, best.begin() + static_cast<std::ptrdiff_t>(shown),
                              [&](size_t a, size_t b) { return logits[a] > logits[b]; });
    fmt::format_to(std::back_inserter(line_), "{:6}", position);
    for (size_t rank = 0; rank < shown; ++rank)
      fmt::format_to(std::back_inserter(line_), "  {:>7} {:8.4f}", best[rank], logits[best[rank]]);
    line_ += '\n';
  }

  bool json_;
  size_t rows_ = 0;
  std::string line_;
};

// One sequence through all stages, its pages in order.
class Session {
 public:
  Session(runtime::LocalPipeline pipeline, size_t prompt_tokens, uint32_t chunk)
      : pipeline_(std::move(pipeline)), prompt_tokens_(static_cast<uint32_t>(prompt_tokens)), chunk_(chunk) {}

  Result<> print_logits(std::span<const int32_t> tokens, const LogitsOptions& options) {
    LogitsPrinter printer(options);
    if (options.positions == "last") {
      SHOAL_TRY_VOID(read(tokens.first(tokens.size() - 1)));
      SHOAL_TRY(const std::span<const float> logits, pipeline_.run_rows(next_step(tokens.last(1), false)));
      printer.print(tokens.size() - 1, logits);
      printer.finish();
      return {};
    }
    for (size_t first = 0; first < tokens.size(); first += chunk_) {
      const auto chunk = tokens.subspan(first, std::min<size_t>(chunk_, tokens.size() - first));
      SHOAL_TRY(const std::span<const float> logits, pipeline_.run_rows(next_step(chunk, false)));
      const size_t vocabulary = logits.size() / chunk.size();
      for (size_t row = 0; row < chunk.size(); ++row)
        printer.print(first + row, logits.subspan(row * vocabulary, vocabulary));
    }
    printer.finish();
    return {};
  }

  Result<std::vector<int32_t>> generate(std::span<const int32_t> prompt, uint32_t count) {
    std::vector<int32_t> answer;
    const size_t begun = (prompt.size() - 1) / chunk_ * chunk_;
    SHOAL_TRY_VOID(read(prompt.first(begun)));
    std::span<const int32_t> rows = prompt.subspan(begun);
    while (answer.size() < count) {
      SHOAL_TRY(const auto sampled, pipeline_.run(next_step(rows, true)));
      answer.push_back(sampled.front().sampled.token);
      rows = std::span(&answer.back(), 1);
    }
    return answer;
  }

 private:
  Result<> read(std::span<const int32_t> tokens) {
    for (size_t first = 0; first < tokens.size(); first += chunk_) {
      const auto chunk = tokens.subspan(first, std::min<size_t>(chunk_, tokens.size() - first));
      SHOAL_TRY_VOID(pipeline_.run(next_step(chunk, false)));
    }
    return {};
  }

  runtime::Step next_step(std::span<const int32_t> tokens, bool samples) {
    runtime::Step step{.id = ++step_id_};
    if (step_id_ == 1)
      step.started.push_back(
          {.sequence = kSequence, .prompt_tokens = prompt_tokens_, .sampling = {.temperature = 0}});
    runtime::StepSequence rows{.sequence = kSequence,
                               .context_tokens = context_,
                               .row_count = static_cast<uint32_t>(tokens.size()),
                               .samples = samples,
                               .first_page_index = pages_};
    context_ += rows.row_count;
    for (; uint64_t{pages_} * kPageTokens < context_; ++pages_) rows.pages.push_back(pages_);
    step.sequences.push_back(std::move(rows));
    step.token_ids.assign(tokens.begin(), tokens.end());
    return step;
  }

  runtime::LocalPipeline pipeline_;
  uint32_t prompt_tokens_;
  uint32_t chunk_;
  uint64_t step_id_ = 0;
  uint32_t context_ = 0;
  uint32_t pages_ = 0;
};

Result<> logits(const LogitsOptions& options) {
  SHOAL_TRY_VOID(check(options));
  SHOAL_TRY(const std::vector<int32_t> tokens, parse_token_ids(options.tokens));
  runtime::LocalPipelineOptions pipeline_options;
  pipeline_options.stages = options.stages;
  pipeline_options.ranks = options.ranks;
  if (!options.shares.empty()) {
    SHOAL_TRY(const std::vector<int32_t> shares, parse_whole_numbers(options.shares, "--shares"));
    pipeline_options.shares.assign(shares.begin(), shares.end());
  }
  pipeline_options.threads = options.threads;
  SHOAL_TRY(pipeline_options.kv.type, parse_kv_type(options.kv));
  SHOAL_TRY(pipeline_options.isa, parse_kernels(options.isa));
  const uint64_t total = tokens.size() + uint64_t{options.generate};
  if (total > limits::kMaxContextTokens)
    return fail(ErrorCode::limit_exceeded,
                fmt::format("{} tokens, more than {}", total, limits::kMaxContextTokens));
  pipeline_options.kv.page_tokens = kPageTokens;
  pipeline_options.kv.page_count = static_cast<uint32_t>((total + kPageTokens - 1) / kPageTokens);

  SHOAL_TRY(const formats::Checkpoint checkpoint, formats::Checkpoint::open(options.path));
  SHOAL_TRY(const model::DecoderSpec spec, model::read_decoder_spec(checkpoint));
  for (int32_t token : tokens)
    if (static_cast<uint32_t>(token) >= spec.vocabulary_size)
      return fail(
          ErrorCode::invalid_argument,
          fmt::format("--tokens: {} is outside the model's vocabulary of {}", token, spec.vocabulary_size));
  pipeline_options.kv.state_slots = model::has_recurrent_layers(spec) ? 1 : 0;
  SHOAL_TRY(runtime::LocalPipeline pipeline,
            runtime::LocalPipeline::load(checkpoint, spec, pipeline_options));
  Session session(std::move(pipeline), tokens.size(), options.chunk);
  if (options.generate == 0) return session.print_logits(tokens, options);
  SHOAL_TRY(const std::vector<int32_t> answer, session.generate(tokens, options.generate));
  if (options.json) {
    fmt::print("{{\"tokens\":[{}]}}\n", fmt::join(answer, ","));
  } else {
    fmt::print("{}\n", fmt::join(answer, " "));
  }
  return {};
}

}  // namespace

Result<std::vector<int32_t>> parse_token_ids(std::string_view text) {
  return parse_whole_numbers(text, "--tokens");
}

Result<std::vector<int32_t>> parse_whole_numbers(std::string_view text, std::string_view flag) {
  std::vector<int32_t> numbers;
  while (true) {
    const size_t comma = std::min(text.find(','), text.size());
    std::string_view word = text.substr(0, comma);
    while (word.starts_with(' ')) word.remove_prefix(1);
    while (word.ends_with(' ')) word.remove_suffix(1);
    int32_t number = -1;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), number);
    if (error != std::errc() || end != word.data() + word.size() || number < 0)
      return fail(ErrorCode::invalid_argument, fmt::format("{}: '{}' is not a whole number", flag, word),
                  "from 0 on, parted by commas: 1,2,3");
    numbers.push_back(number);
    if (comma == text.size()) return numbers;
    text.remove_prefix(comma + 1);
  }
}

int run_logits(const LogitsOptions& options) {
  const Result<> done = logits(options);
  return done ? 0 : report_failure(done.error());
}

}  // namespace shoal::cli
