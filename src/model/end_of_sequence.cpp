// Which tokens end an answer: what the files say, and for GGUF the end-of-turn tokens that chat models are
// known by.
#include <algorithm>
#include <array>

#include "base/limits.h"
#include "model/decoder_spec.h"

namespace shoal::model {
namespace {

using formats::Checkpoint;
using formats::GgufMetadata;

// Texts of control tokens that end a turn or a document. A GGUF names one of them at best.
constexpr std::array<std::string_view, 9> kEndTexts = {"<|im_end|>",    "<|eot_id|>",    "<|eom_id|>",
                                                       "<|end|>",       "<|endoftext|>", "<|end_of_text|>",
                                                       "<end_of_turn>", "<|return|>",    "<|call|>"};
// gpt-oss ends each message of an answer with <|end|>, and the answer with <|return|> or <|call|>.
constexpr std::string_view kMessageEnd = "<|end|>", kAnswerEnd = "<|return|>";
constexpr int64_t kControlToken = 3;  // tokenizer.ggml.token_type

void add(std::vector<int32_t>& ids, int64_t id) {
  if (id < 0 || id >= static_cast<int64_t>(limits::kMaxVocabulary)) return;
  const auto token = static_cast<int32_t>(id);
  if (std::ranges::find(ids, token) == ids.end()) ids.push_back(token);
}

// `eos_token_id` is a number or a list of numbers.
void add_from_json(std::vector<int32_t>& ids, const JsonObject& object) {
  const Json* value = find(object, "eos_token_id");
  if (!value) return;
  if (value->is_int64()) add(ids, value->get_int64());
  const JsonArray* list = value->if_array();
  if (!list) return;
  constexpr size_t kMostIds = 64;
  for (size_t i = 0; i < std::min(list->size(), kMostIds); ++i) {
    if ((*list)[i].is_int64()) add(ids, (*list)[i].get_int64());
  }
}

void add_known_end_tokens(std::vector<int32_t>& ids, const GgufMetadata& metadata) {
  const auto* tokens = metadata.find_strings("tokenizer.ggml.tokens");
  const auto types = metadata.integers("tokenizer.ggml.token_type");
  if (!tokens || types.size() != tokens->size()) return;
  const bool has_messages = std::ranges::find(*tokens, kAnswerEnd) != tokens->end();
  for (size_t id = 0; id < tokens->size(); ++id) {
    if (types[id] != kControlToken || (has_messages && (*tokens)[id] == kMessageEnd)) continue;
    if (std::ranges::find(kEndTexts, (*tokens)[id]) != kEndTexts.end()) add(ids, static_cast<int64_t>(id));
  }
}

}  // namespace

std::vector<int32_t> end_of_sequence_ids(const Checkpoint& checkpoint) {
  std::vector<int32_t> ids;
  if (const GgufMetadata* metadata = checkpoint.gguf()) {
    for (auto key :
         {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"}) {
      const auto id = metadata->require_integer(key, 0, limits::kMaxVocabulary);
      if (id) add(ids, *id);
    }
    add_known_end_tokens(ids, *metadata);
    return ids;
  }
  if (auto text = checkpoint.read_sibling("generation_config.json", limits::kMaxConfigBytes)) {
    if (auto generation = parse_json_object(*text, "generation_config.json")) add_from_json(ids, *generation);
  }
  if (const JsonObject* config = checkpoint.config()) {
    add_from_json(ids, *config);
    const Json* text = find(*config, "text_config");  // of a multimodal checkpoint
    if (text && text->is_object()) add_from_json(ids, text->get_object());
  }
  return ids;
}

}  // namespace shoal::model
