// The models that this room's tests read, and what Hugging Face computed for them. For tests only.
#pragma once

#include <filesystem>
#include <gtest/gtest.h>
#include <stdexcept>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/json.h"
#include "base/limits.h"
#include "formats/checkpoint.h"
#include "text/tokenizer.h"

namespace shoal::text::testing {

inline std::filesystem::path source_directory() {
  return SHOAL_SOURCE_DIR;
}
inline std::filesystem::path fixture(std::string_view name) {
  return source_directory() / "tests/fixtures" / name;
}

// The value, or a failed test that shows the Error.
template <class T>
T expect_value(Result<T> result, std::string_view what) {
  if (!result.has_value()) {
    ADD_FAILURE() << what << ": " << result.error().text();
    throw std::runtime_error(std::string(what));
  }
  return *std::move(result);
}

inline JsonObject read_expected(std::string_view model) {
  const auto path = fixture("models") / model / "expected.json";
  const std::string text = expect_value(read_text_file(path, limits::kMaxConfigBytes), path.string());
  return expect_value(parse_json_object(text, path.string()), path.string());
}

inline formats::Checkpoint open_checkpoint(const std::filesystem::path& path) {
  return expect_value(formats::Checkpoint::open(path), path.string());
}

inline Tokenizer open_tokenizer(const std::filesystem::path& path) {
  return expect_value(Tokenizer::open(open_checkpoint(path)), path.string());
}

inline std::vector<int32_t> ids_of(const Json& array) {
  std::vector<int32_t> ids;
  for (const Json& id : array.as_array()) ids.push_back(id.to_number<int32_t>());
  return ids;
}

inline std::string string_of(const Json& value) {
  return std::string(value.as_string());
}

// A directory of files with the expected results of the model they hold.
struct Model {
  std::string path;      // below the fixtures
  std::string expected;  // the model in models/ whose results apply
};

inline std::vector<Model> fixture_models() {
  return {{"models/llama", "llama"},
          {"models/llama_tied", "llama_tied"},
          {"models/qwen3", "qwen3"},
          {"gguf/llama-bf16.gguf", "llama"},
          {"gguf/qwen3-bf16.gguf", "qwen3"}};
}

}  // namespace shoal::text::testing
