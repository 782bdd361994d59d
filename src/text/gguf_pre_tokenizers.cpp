// What tokenizer.ggml.pre stands for. The names are those that llama.cpp's converter writes; the patterns are
// those of the published tokenizer.json files, and where none was at hand what llama.cpp uses in their place.

#include <algorithm>
#include <array>

#include "text/gguf_tokenizer.h"

namespace shoal::text {

namespace {

using Step = PreTokenizer::Step;

// Contractions, words with one leading sign, digits by one or up to three, signs, line ends, spaces.
constexpr std::string_view kQwen2 =
    R"re((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)re";
constexpr std::string_view kLlama3 =
    R"re((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)re";
constexpr std::string_view kMinicpm5 =
    R"re((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)re";
constexpr std::string_view kSeedCoder =
    R"re((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+)re";
constexpr std::string_view kUfakzeka =
    R"re([^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)re";
constexpr std::string_view kBailing =
    R"re('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+)re";
constexpr std::string_view kExaoneMoe =
    R"re((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+)re";
// Llama 3's with runs of spaces cut by powers of two.
constexpr std::string_view kJais2 =
    R"re((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|)re"
    R"re(\s{512}(?!\S)|\s{256}(?!\S)|\s{128}(?!\S)|\s{64}(?!\S)|\s{32}(?!\S)|\s{16}(?!\S)|\s{8}(?!\S)|\s{4}(?!\S)|\s{1,2}(?!\S)|\s{1})re";
// As Qwen2, with combining marks as parts of words.
constexpr std::string_view kQwen35 =
    R"re((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)re";
// Words split where lower case turns to upper case.
constexpr std::string_view kGpt4o =
    R"re([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|)re"
    R"re([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|)re"
    R"re(\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)re";
constexpr std::string_view kYoutuScripts =
    R"re([가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|[一-龥぀-ゟ゠-ヿ]+)re";
constexpr std::string_view kYoutu =
    R"re([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|)re"
    R"re([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|)re"
    R"re(\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)re";
constexpr std::string_view kTekken =
    R"re([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|)re"
    R"re([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|)re"
    R"re(\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)re";
// GPT-4o's with Chinese characters kept apart from other letters.
constexpr std::string_view kKimiK2 =
    R"re([\p{Han}]+|)re"
    R"re([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|)re"
    R"re([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|)re"
    R"re(\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)re";

constexpr std::string_view kDigitsByThree = R"re(\p{N}{1,3})re";
// Counted from the end of the number, as thousands are.
constexpr std::string_view kThousands = R"re(\d{1,3}(?=(?:\d{3})*\b))re";
constexpr std::string_view kHanAndKana = R"re([一-龥぀-ゟ゠-ヿ]+)re";
constexpr std::string_view kDeepseek3 =
    R"re([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|)re"
    R"re(\s*[\r\n]+|\s+(?!\S)|\s+)re";
constexpr std::string_view kSpark =
    R"re([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+|)re"
    R"re([\r\n]|\s+(?!\S)|\s+)re";
constexpr std::string_view kAfmoeDigits = R"re(\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N})))re";
constexpr std::string_view kAfmoeScripts =
    R"re([一-鿿㐀-䶿豈-﫿぀-ゟ゠-ヿ･-ﾟ⼀-⿟เ-๿຀-໿ក-៿က-႟ꩠ-ꩿꧠ-꧿가-힯ᄀ-ᇿ]+)re";

constexpr std::string_view kLineEnd = R"re([\r\n])re";
constexpr std::string_view kDeepseekCjk = R"re([一-龥ࠀ-一가-퟿]+)re";
// Escapes stand for characters that editors replace by their canonical form.
constexpr std::string_view kDeepseekLetters =
    R"re(\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-\x{1F7D})re"
    R"re(ᾀ-ᾴᾶ-ᾼ\x{1FBE}ῂ-ῄῆ-ῌῐ-\x{1FD3}ῖ-\x{1FDB}ῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤ\x{2126}ℨ\x{212A}-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+)re";
constexpr std::string_view kDeepseekSigns = R"re(\s?[!-/:-~！-／：-～‘-‟　-。]+)re";
constexpr std::string_view kBloom = R"re( ?[^(\s|.,!?…。，、।۔،)]+)re";
constexpr std::string_view kGpt2 =
    R"re('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)re";

PreTokenizer patterns(std::initializer_list<std::string_view> list) {
  PreTokenizer result;
  for (std::string_view pattern : list) result.pieces.push_back({.step = Step::split, .pattern = pattern});
  return result;
}

PreTokenizer nfc(PreTokenizer pre_tokenizer) {
  pre_tokenizer.nfc = true;
  return pre_tokenizer;
}

PreTokenizer ignoring_merges(PreTokenizer pre_tokenizer) {
  pre_tokenizer.ignore_merges = true;
  return pre_tokenizer;
}

PreTokenizer with_bos(PreTokenizer pre_tokenizer) {
  pre_tokenizer.adds_bos = true;
  return pre_tokenizer;
}

PreTokenizer gpt2() {
  return {.pieces = {{.step = Step::words}}};
}
PreTokenizer gpt2_single_digits() {
  return {.pieces = {{.step = Step::one_digit}, {.step = Step::words}}};
}
// Digits are looked for among GPT-2's letters for bytes, some of which are digits themselves.
PreTokenizer falcon() {
  return {.pieces = {{.step = Step::punctuation_run},
                     {.step = Step::words},
                     {.step = Step::digit_run},
                     {.step = Step::split, .pattern = "[0-9][0-9][0-9]"}}};
}
// What llama.cpp does when a file does not say, or says "default".
PreTokenizer unnamed() {
  return patterns({R"re([\p{P}\$\+<=>\^~\|]+)re", kGpt2, R"re(\p{N}+)re", "[0-9][0-9][0-9]"});
}
PreTokenizer chameleon() {
  PreTokenizer result = patterns({"<sentinel:[0-9]+>", "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z",
                                  R"re(([\t\n]|    |  ))re", R"re(\p{N})re", R"re([\p{P}!-/:-@\[-`{-~])re"});
  result.pieces.push_back({.step = Step::words});
  return with_bos(std::move(result));
}

struct Family {
  PreTokenizer (*make)();
  std::vector<std::string_view> names;
};

const std::vector<Family>& gpt2_families() {
  static const std::vector<Family> families = {
      {unnamed, {"default"}},
      {gpt2,
       {"gpt-2", "gpt2", "phi-2", "jina-es", "jina-de", "jina-v2-es", "jina-v2-de", "gigachat", "a.x-4.0",
        "mellum", "exaone4", "jais", "trillion", "granite-docling"}},
      {[] { return nfc(gpt2()); }, {"mpt", "olmo"}},  // GPT-NeoX's tokenizer
      {gpt2_single_digits, {"starcoder", "refact", "smollm", "codeshell", "exaone", "minerva-7b", "mellum2"}},
      {[] { return nfc(gpt2_single_digits()); }, {"command-r"}},
      {falcon, {"falcon"}},
      {chameleon, {"chameleon"}},
      {[] { return patterns({kBloom}); }, {"poro-chat", "bloom", "gpt3-finnish"}},
      {[] { return patterns({kBloom, R"re(\p{N})re"}); }, {"viking"}},
      {[] { return patterns({R"re(\p{N}+)re", R"re((?=(\d{3})+(?!\d)))re"}); }, {"superbpe"}},
  };
  return families;
}

const std::vector<Family>& gpt4_families() {
  static const std::vector<Family> families = {
      {[] { return with_bos(ignoring_merges(patterns({kLlama3}))); },
       {"llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"}},
      {[] { return patterns({kLlama3}); }, {"dbrx", "smaug-bpe", "glm4", "chatglm-bpe"}},
      {[] { return nfc(patterns({kQwen2})); },
       {"qwen2", "deepseek-r1-qwen", "megrez", "stablelm2", "kormo", "f2llmv2"}},
      {[] { return patterns({kQwen2}); }, {"hunyuan", "grok-2", "solar-open"}},
      {[] { return nfc(patterns({kQwen35})); }, {"qwen35"}},
      {[] { return ignoring_merges(patterns({kDigitsByThree, kMinicpm5})); }, {"minicpm5"}},
      {[] { return patterns({kJais2}); }, {"jais-2"}},
      {[] { return patterns({kSeedCoder}); }, {"seed-coder"}},
      {[] { return patterns({kUfakzeka}); }, {"ufakzeka"}},
      {[] { return patterns({kBailing}); }, {"bailingmoe", "bailingmoe2", "llada-moe"}},
      {[] { return patterns({kExaoneMoe}); }, {"exaone-moe"}},
      {[] { return patterns({"[^\\n]+|[\\n]+", kQwen2}); }, {"laguna"}},
      {[] { return patterns({kGpt4o}); }, {"gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"}},
      {[] { return patterns({kThousands, kGpt4o}); }, {"tiny_aya", "cohere2moe"}},
      {[] { return ignoring_merges(patterns({kYoutuScripts, kYoutu})); }, {"youtu"}},
      {[] { return with_bos(ignoring_merges(patterns({kTekken}))); }, {"tekken"}},
      {[] { return patterns({kKimiK2}); }, {"kimi-k2"}},
  };
  return families;
}

const std::vector<Family>& deepseek_families() {
  static const std::vector<Family> families = {
      {[] { return with_bos(patterns({kDigitsByThree, kHanAndKana, kDeepseek3})); }, {"deepseek-v3"}},
      {[] { return patterns({kDigitsByThree, kHanAndKana, kDeepseek3}); },
       {"hunyuan-dense", "joyai-llm", "hy_v4"}},
      {[] { return patterns({kDigitsByThree, kHanAndKana, kSpark, R"re(\p{N})re"}); }, {"spark2_5"}},
      {[] { return patterns({kAfmoeDigits, kAfmoeScripts, kDeepseek3}); }, {"afmoe"}},
      {[] {
         PreTokenizer result =
             patterns({kLineEnd, kDeepseekLetters, kDeepseekSigns, R"re(\s+$)re", kDeepseekCjk});
         result.pieces.push_back({.step = Step::one_digit});
         return with_bos(std::move(result));
       },
       {"deepseek-llm"}},
      {[] {
         PreTokenizer result = patterns({kLineEnd, R"re(\s?\p{L}+)re", R"re(\s?\p{P}+)re", kDeepseekCjk});
         result.pieces.push_back({.step = Step::one_digit});
         return with_bos(std::move(result));
       },
       {"deepseek-coder"}},
  };
  return families;
}

}  // namespace

std::optional<PreTokenizer> pre_tokenizer_named(std::string_view name) {
  for (const auto* families : {&gpt2_families(), &gpt4_families(), &deepseek_families()}) {
    for (const Family& family : *families) {
      if (std::ranges::find(family.names, name) != family.names.end()) return family.make();
    }
  }
  return std::nullopt;
}

}  // namespace shoal::text
