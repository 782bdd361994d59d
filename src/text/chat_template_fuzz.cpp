// libFuzzer: a chat template, rendered for one conversation. The limits are tight, because a template that
// runs over one keeps its thread and memory.
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>

#include "base/assert.h"
#include "bridge/bridge.h"
#include "text/bridge_call.h"
#include "text/fuzz_leaks.h"

namespace {

constexpr shoal_template_limits kLimits = {
    .fuel = 50'000, .memory_bytes = 4U << 20, .output_bytes = 1U << 20, .time_ms = 5'000};
constexpr std::string_view kVariables =
    R"json({"bos_token": "<s>", "eos_token": "</s>", "add_generation_prompt": true, "enable_thinking": false,
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {"properties": {"a": {"type": "string"}}}}}],
    "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": [{"type": "text", "text": "hi"}]},
    {"role": "assistant", "content": "<think>x</think>é", "tool_calls": [{"id": "1", "function": {"name": "f",
    "arguments": {"a": 1.5, "b": null}}}]}, {"role": "tool", "content": "ok"}]})json";

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace shoal::text;
  const std::string_view source(reinterpret_cast<const char*>(data), size);
  shoal_template* opened = nullptr;
  if (!bridge_call(
          [&](char** error) { return shoal_template_open(view_of(source), &kLimits, &opened, error); })) {
    return 0;
  }
  const std::unique_ptr<shoal_template, decltype(&shoal_template_free)> chat(opened, &shoal_template_free);
  const auto rendered = bridge_text([&](char** text, size_t* bytes, char** error) {
    return shoal_template_render(chat.get(), view_of(kVariables), 1'721'952'000, text, bytes, error);
  });
  if (rendered) SHOAL_ASSERT(rendered->size() <= kLimits.output_bytes);
  return 0;
}
