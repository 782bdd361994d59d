#include <initializer_list>

#include "text/gguf_tokenizer.h"

namespace shoal::text {

namespace {

// Contractions, words with one leading sign, digits by one or up to three, signs, line ends, spaces.
constexpr std::string_view kQwen2 =
    R"re((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)re";
constexpr std::string_view kLlama3 =
    R"re((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)re";
// As Qwen2, with combining marks as parts of words.
constexpr std::string_view kQwen35 =
    R"re((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)re";
// Words split where lower case turns to upper case.
constexpr std::string_view kGpt4o =
    R"re([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|)re"
    R"re([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|)re"
    R"re(\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)re";
constexpr std::string_view kTekken =
    R"re([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|)re"
    R"re([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|)re"
    R"re(\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)re";
constexpr std::string_view kDigitsByThree = R"re(\p{N}{1,3})re";
constexpr std::string_view kHanAndKana = R"re([一-龥぀-ゟ゠-ヿ]+)re";
constexpr std::string_view kDeepseek3 =
    R"re([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|)re"
    R"re(\s*[\r\n]+|\s+(?!\S)|\s+)re";

}  // namespace

std::optional<PreTokenizer> pre_tokenizer_named(std::string_view name) {
  const auto is = [name](std::initializer_list<std::string_view> names) {
    for (std::string_view candidate : names) {
      if (candidate == name) return true;
    }
    return false;
  };
  if (is({"default", "gpt-2", "gpt2"})) return PreTokenizer{};
  if (is({"llama-bpe", "llama3", "llama-v3"})) {
    return PreTokenizer{.patterns = {kLlama3}, .ignore_merges = true, .adds_bos = true};
  }
  if (is({"qwen2", "deepseek-r1-qwen"})) return PreTokenizer{.patterns = {kQwen2}, .nfc = true};
  if (is({"qwen35"})) return PreTokenizer{.patterns = {kQwen35}, .nfc = true};
  if (is({"glm4", "chatglm-bpe"})) return PreTokenizer{.patterns = {kLlama3}};
  if (is({"gpt-4o", "llama4"})) return PreTokenizer{.patterns = {kGpt4o}};
  if (is({"tekken"})) return PreTokenizer{.patterns = {kTekken}, .ignore_merges = true, .adds_bos = true};
  if (is({"deepseek-v3"})) {
    return PreTokenizer{.patterns = {kDigitsByThree, kHanAndKana, kDeepseek3}, .adds_bos = true};
  }
  if (is({"smollm", "starcoder", "refact", "command-r"})) return PreTokenizer{.single_digits = true};
  return std::nullopt;
}

}  // namespace shoal::text
