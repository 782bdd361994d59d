// The models that this room's tests read, and what Hugging Face computed for them. For tests only.
#pragma once

#include <filesystem>
#include <gtest/gtest.h>
#include <ostream>
#include <stdexcept>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/json.h"
#include "base/limits.h"
#include "formats/checkpoint.h"
#include "text/chat_template.h"
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

inline Json read_json(const std::filesystem::path& path) {
  const std::string text = expect_value(read_text_file(path, limits::kMaxConfigBytes), path.string());
  return expect_value(parse_json(text, path.string()), path.string());
}

inline JsonObject read_expected(std::string_view model) {
  return read_json(fixture("models") / model / "expected.json").as_object();
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

// One "chat" case of expected.json.
inline ChatInput chat_input_of(const Json& entry) {
  const JsonObject& object = entry.as_object();
  ChatInput input{.messages = object.at("messages").as_array()};
  if (const Json* tools = find(object, "tools")) input.tools = *tools;
  if (const Json* extra = find(object, "extra")) input.variables = extra->as_object();
  if (const Json* prompt = find(object, "add_generation_prompt"))
    input.add_generation_prompt = prompt->as_bool();
  return input;
}

// A directory or file with the expected results of the model it holds.
struct Model {
  std::string path;      // below the fixtures
  std::string expected;  // the model in models/ that has the same tokenizer and template
};

inline void PrintTo(const Model& model, std::ostream* out) {
  *out << model.path;
}

// Every model of the fixtures' manifest whose tokenizer has expected results: models/ themselves, gguf/ and
// mlx/, which name the model that they were made from.
inline std::vector<Model> fixture_models() {
  std::vector<Model> models;
  const Json manifest = read_json(fixture("manifest.json"));
  for (const Json& entry : manifest.as_array()) {
    const std::string path = string_of(entry.at("path"));
    const std::string expected = string_of(entry.at("expected"));
    if (expected.starts_with("models/")) models.push_back({path, expected.substr(7)});
    if (expected.starts_with("mlx/"))
      models.push_back({path, expected.contains("moe") ? "qwen3_moe" : "qwen3"});
  }
  return models;
}

// The same model in every quantised type.
inline std::vector<std::string> quantised_models() {
  std::vector<std::string> paths;
  const Json manifest = read_json(fixture("manifest.json"));
  for (const Json& entry : manifest.as_array()) {
    const std::string path = string_of(entry.at("path"));
    if (path.starts_with("quants/")) paths.push_back(path);
  }
  return paths;
}

}  // namespace shoal::text::testing
