#include "text/tokenizer.h"

#include "base/json.h"
#include "base/limits.h"
#include "text/bridge_call.h"
#include "text/gguf_tokenizer.h"
#include "text/special_names.h"
#include "text/tokenizer_state.h"

namespace shoal::text {

namespace {

// Looking for special tokens in messages costs up to this many comparisons a character (special_spelling.h).
constexpr size_t kMaxSpecialTokenBytes = 256;

std::vector<AddedToken> list_added_tokens(const shoal_tokenizer* handle) {
  std::vector<AddedToken> added;
  const auto each = [](void* context, int32_t id, int special, int control, shoal_view content) {
    auto* list = static_cast<std::vector<AddedToken>*>(context);
    list->push_back({.id = id,
                     .content = std::string(text_of(content)),
                     .special = special != 0,
                     .control = control != 0});
  };
  shoal_tokenizer_added(handle, each, &added);
  return added;
}

Result<std::vector<int32_t>> encode_by_bridge(const shoal_tokenizer* handle, std::string_view text,
                                              bool add_special_tokens, shoal_special special,
                                              std::span<const size_t> cuts) {
  int32_t* tokens = nullptr;
  size_t count = 0;
  SHOAL_TRY_VOID(bridge_call([&](char** error) {
    return shoal_tokenizer_encode(handle, view_of(text), add_special_tokens ? 1 : 0, special, cuts.data(),
                                  cuts.size(), &tokens, &count, error);
  }));
  const std::unique_ptr<int32_t, decltype(&shoal_tokens_free)> owner(tokens, &shoal_tokens_free);
  if (tokens == nullptr) return fail(ErrorCode::out_of_memory, "no memory for the tokens of a text");
  return std::vector<int32_t>(tokens, tokens + count);
}

}  // namespace

Result<Tokenizer> Tokenizer::open_json(std::string_view tokenizer_json,
                                       std::optional<std::string> bos_token) {
  if (tokenizer_json.size() > limits::kMaxTokenizerBytes) {
    return fail(ErrorCode::limit_exceeded,
                "tokenizer.json has " + std::to_string(tokenizer_json.size()) + " bytes");
  }
  shoal_tokenizer* opened = nullptr;
  auto outcome = bridge_call([&](char** error) {
    return shoal_tokenizer_open(view_of(tokenizer_json), limits::kMaxVocabulary, &opened, error);
  });
  if (!outcome.has_value()) {
    // Whatever the reader stumbled over, the file is to blame.
    if (outcome.error().code == ErrorCode::internal) outcome.error().code = ErrorCode::malformed;
    return std::unexpected(std::move(outcome).error());
  }
  auto state = std::make_shared<State>();
  state->handle.reset(opened);
  state->added_tokens = list_added_tokens(opened);
  for (const AddedToken& token : state->added_tokens) {
    if (token.control && token.content.size() > kMaxSpecialTokenBytes) {
      return fail(ErrorCode::limit_exceeded, "the control token " + std::to_string(token.id) + " has " +
                                                 std::to_string(token.content.size()) + " bytes, over " +
                                                 std::to_string(kMaxSpecialTokenBytes));
    }
  }
  if (bos_token.has_value()) {
    const int32_t id = shoal_tokenizer_find(opened, view_of(*bos_token));
    if (id >= 0) state->bos_id = id;
  }
  return Tokenizer(std::move(state));
}

Result<Tokenizer> Tokenizer::from_json(std::string_view tokenizer_json) {
  return open_json(tokenizer_json, std::nullopt);
}

Result<Tokenizer> Tokenizer::from_gguf(const formats::GgufMetadata& metadata) {
  SHOAL_TRY(std::string tokenizer_json, tokenizer_json_from_gguf(metadata));
  SHOAL_TRY(SpecialNames names, special_names_from_gguf(metadata));
  return open_json(tokenizer_json, std::move(names.bos));
}

Result<Tokenizer> Tokenizer::open(const formats::Checkpoint& checkpoint) {
  if (checkpoint.gguf() != nullptr) return from_gguf(*checkpoint.gguf());
  SHOAL_TRY(std::string tokenizer_json,
            checkpoint.read_sibling("tokenizer.json", limits::kMaxTokenizerBytes));
  SHOAL_TRY(SpecialNames names, special_names_beside(checkpoint));
  return open_json(tokenizer_json, std::move(names.bos));
}

Result<std::vector<int32_t>> Tokenizer::encode(std::string_view text, EncodeOptions options) const {
  const shoal_special special =
      options.special_text == SpecialText::as_text ? SHOAL_SPECIAL_AS_TEXT : SHOAL_SPECIAL_RECOGNISED;
  return encode_by_bridge(state_->handle.get(), text, options.add_special_tokens, special, {});
}

Result<std::vector<int32_t>> Tokenizer::encode_with_cuts(std::string_view text,
                                                         std::span<const size_t> cuts) const {
  return encode_by_bridge(state_->handle.get(), text, false, SHOAL_SPECIAL_UNCUT, cuts);
}

Result<std::string> Tokenizer::decode(std::span<const int32_t> tokens, SpecialTokens special) const {
  return bridge_text([&](char** text, size_t* size, char** error) {
    return shoal_tokenizer_decode(state_->handle.get(), tokens.data(), tokens.size(),
                                  special == SpecialTokens::skip ? 1 : 0, text, size, error);
  });
}

size_t Tokenizer::vocabulary_size() const {
  return shoal_tokenizer_vocabulary_size(state_->handle.get());
}

std::optional<int32_t> Tokenizer::find(std::string_view token) const {
  const int32_t id = shoal_tokenizer_find(state_->handle.get(), view_of(token));
  if (id < 0) return std::nullopt;
  return id;
}

std::optional<std::string> Tokenizer::token(int32_t id) const {
  size_t size = 0;
  const std::unique_ptr<char, decltype(&shoal_string_free)> text(
      shoal_tokenizer_token(state_->handle.get(), id, &size), &shoal_string_free);
  if (text == nullptr) return std::nullopt;
  return std::string(text.get(), size);
}

std::optional<int32_t> Tokenizer::bos_id() const {
  return state_->bos_id;
}

const std::vector<AddedToken>& Tokenizer::added_tokens() const {
  return state_->added_tokens;
}

}  // namespace shoal::text
