#include "text/detokenizer.h"

#include "text/bridge_call.h"
#include "text/tokenizer_state.h"

namespace shoal::text {

struct IncrementalDetokenizer::State {
  std::unique_ptr<shoal_decoder, decltype(&shoal_decoder_free)> handle{nullptr, &shoal_decoder_free};
};

IncrementalDetokenizer::IncrementalDetokenizer(std::unique_ptr<State> state) : state_(std::move(state)) {}
IncrementalDetokenizer::IncrementalDetokenizer(IncrementalDetokenizer&&) noexcept = default;
IncrementalDetokenizer& IncrementalDetokenizer::operator=(IncrementalDetokenizer&&) noexcept = default;
IncrementalDetokenizer::~IncrementalDetokenizer() = default;

Result<IncrementalDetokenizer> IncrementalDetokenizer::open(const Tokenizer& tokenizer,
                                                            SpecialTokens special) {
  shoal_decoder* opened = nullptr;
  const int skip_special = special == SpecialTokens::skip ? 1 : 0;
  SHOAL_TRY_VOID(bridge_call([&](char** error) {
    return shoal_decoder_open(tokenizer.state().handle.get(), skip_special, &opened, error);
  }));
  auto state = std::make_unique<State>();
  state->handle.reset(opened);
  return IncrementalDetokenizer(std::move(state));
}

Result<std::string> IncrementalDetokenizer::push(int32_t token) {
  return bridge_text([&](char** text, size_t* size, char** error) {
    return shoal_decoder_push(state_->handle.get(), token, text, size, error);
  });
}

Result<std::string> IncrementalDetokenizer::flush() {
  return bridge_text([&](char** text, size_t* size, char** error) {
    return shoal_decoder_flush(state_->handle.get(), text, size, error);
  });
}

}  // namespace shoal::text
