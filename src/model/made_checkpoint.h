// For tests: checkpoints of zeros in a directory of their own, from a config.json and the shapes of tensors,
// or from GGUF metadata. Files are sparse, so shapes may be those of published models.
#pragma once

#include <bit>
#include <cstdint>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <gtest/gtest.h>
#include <map>
#include <numeric>
#include <string>
#include <type_traits>
#include <unistd.h>
#include <variant>
#include <vector>

#include "formats/checkpoint.h"
#include "model/decoder_spec.h"

namespace shoal::model {

using Shapes = std::map<std::string, std::vector<uint64_t>>;
using GgufValue = std::variant<uint32_t, float, std::string, std::vector<uint32_t>, std::vector<std::string>>;
using GgufValues = std::map<std::string, GgufValue>;

class MadeCheckpoint : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto* test = ::testing::UnitTest::GetInstance()->current_test_info();
    directory_ = std::filesystem::temp_directory_path() /
                 fmt::format("shoal-{}-{}-{}", test->test_suite_name(), test->name(), ::getpid());
    std::filesystem::remove_all(directory_);
    std::filesystem::create_directory(directory_);
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  Result<DecoderSpec> read_directory(const std::string& config, const Shapes& tensors) {
    std::ofstream(directory_ / "config.json") << config;
    std::string header = "{";
    uint64_t offset = 0;
    for (const auto& [name, shape] : tensors) {
      const uint64_t end = offset + 2 * values(shape);
      header += fmt::format(R"({}"{}":{{"dtype":"BF16","shape":[{}],"data_offsets":[{},{}]}})",
                            header.size() > 1 ? "," : "", name, fmt::join(shape, ","), offset, end);
      offset = end;
    }
    header += "}";
    header.resize((header.size() + 7) / 8 * 8, ' ');
    const auto path = directory_ / "model.safetensors";
    std::ofstream file(path, std::ios::binary);
    append<uint64_t>(file, header.size());
    file << header;
    file.close();
    std::filesystem::resize_file(path, 8 + header.size() + offset);
    return read(directory_);
  }

  // Tensors are F32, but those in `floats`, which also have values.
  Result<DecoderSpec> read_gguf(const GgufValues& metadata, const Shapes& tensors,
                                const std::map<std::string, std::vector<float>>& floats = {}) {
    Shapes all = tensors;
    for (const auto& [name, numbers] : floats) all[name] = {numbers.size()};
    const auto path = directory_ / "model.gguf";
    std::ofstream file(path, std::ios::binary);
    file << "GGUF";
    append<uint32_t>(file, 3);
    append<uint64_t>(file, all.size());
    append<uint64_t>(file, metadata.size());
    for (const auto& [key, value] : metadata) append_pair(file, key, value);
    uint64_t offset = 0;
    std::map<std::string, uint64_t> places;
    for (const auto& [name, shape] : all) {
      append_text(file, name);
      append<uint32_t>(file, static_cast<uint32_t>(shape.size()));
      for (auto size = shape.rbegin(); size != shape.rend(); ++size) append<uint64_t>(file, *size);
      append<uint32_t>(file, 0);  // F32
      append<uint64_t>(file, offset);
      places[name] = offset;
      offset += (4 * values(shape) + 31) / 32 * 32;
    }
    const auto data = (static_cast<uint64_t>(file.tellp()) + 31) / 32 * 32;
    for (const auto& [name, numbers] : floats) {
      file.seekp(static_cast<std::streamoff>(data + places[name]));
      for (const float number : numbers) append(file, number);
    }
    file.close();
    std::filesystem::resize_file(path, data + offset);
    return read(path);
  }

  static const AttentionSpec& attention_of(const DecoderSpec& spec, size_t layer) {
    return std::get<AttentionSpec>(spec.layers[layer].mixer);
  }
  static const DenseSpec& dense_of(const DecoderSpec& spec, size_t layer) {
    return std::get<DenseSpec>(spec.layers[layer].feed_forward);
  }
  static const MixtureSpec& mixture_of(const DecoderSpec& spec, size_t layer) {
    return std::get<MixtureSpec>(spec.layers[layer].feed_forward);
  }
  static std::vector<uint32_t> windows_of(const DecoderSpec& spec) {
    std::vector<uint32_t> windows;
    for (size_t layer = 0; layer < spec.layers.size(); ++layer)
      windows.push_back(attention_of(spec, layer).window);
    return windows;
  }

  std::filesystem::path directory_;

 private:
  static Result<DecoderSpec> read(const std::filesystem::path& path) {
    SHOAL_TRY(const auto checkpoint, formats::Checkpoint::open(path));
    return read_decoder_spec(checkpoint);
  }

  static uint64_t values(const std::vector<uint64_t>& shape) {
    return std::accumulate(shape.begin(), shape.end(), uint64_t{1}, std::multiplies<>());
  }

  template <class Number>
  static void append(std::ofstream& file, Number number) {
    const auto bytes = std::bit_cast<std::array<char, sizeof number>>(number);
    file.write(bytes.data(), bytes.size());
  }

  static void append_text(std::ofstream& file, const std::string& text) {
    append<uint64_t>(file, text.size());
    file << text;
  }

  static constexpr uint32_t kGgufWhole = 4, kGgufReal = 6, kGgufText = 8, kGgufArray = 9;

  static void append_pair(std::ofstream& file, const std::string& key, const GgufValue& value) {
    append_text(file, key);
    if (const auto* whole = std::get_if<uint32_t>(&value)) {
      append(file, kGgufWhole);
      append(file, *whole);
    } else if (const auto* number = std::get_if<float>(&value)) {
      append(file, kGgufReal);
      append(file, *number);
    } else if (const auto* text = std::get_if<std::string>(&value)) {
      append(file, kGgufText);
      append_text(file, *text);
    } else if (const auto* wholes = std::get_if<std::vector<uint32_t>>(&value)) {
      append_array(file, kGgufWhole, *wholes);
    } else {
      append_array(file, kGgufText, std::get<std::vector<std::string>>(value));
    }
  }

  template <class Element>
  static void append_array(std::ofstream& file, uint32_t type, const std::vector<Element>& elements) {
    append(file, kGgufArray);
    append(file, type);
    append<uint64_t>(file, elements.size());
    for (const Element& element : elements) {
      if constexpr (std::is_same_v<Element, std::string>)
        append_text(file, element);
      else
        append(file, element);
    }
  }
};

// The tensors of a decoder of `layers` layers in Llama's names: D hidden, F feed-forward, Q and K the rows of
// queries and keys. Feed-forwards only where `dense`.
struct PlainShapes {
  uint64_t layers = 2, hidden = 16, width = 24, queries = 16, keys = 8, vocabulary = 32;
  bool tied = false, biases = false, head_norms = false, dense = true, gemma_norms = false;
  uint64_t head_dim = 8;
  std::string prefix = "model.";

  Shapes shapes() const {
    Shapes all = {{prefix + "embed_tokens.weight", {vocabulary, hidden}}, {prefix + "norm.weight", {hidden}}};
    if (!tied) all["lm_head.weight"] = {vocabulary, hidden};
    for (uint64_t i = 0; i < layers; ++i) add_layer(all, fmt::format("{}layers.{}.", prefix, i));
    return all;
  }

 private:
  void add_layer(Shapes& all, const std::string& layer) const {
    all[layer + "input_layernorm.weight"] = all[layer + "post_attention_layernorm.weight"] = {hidden};
    if (gemma_norms)
      all[layer + "pre_feedforward_layernorm.weight"] =
          all[layer + "post_feedforward_layernorm.weight"] = {hidden};
    const std::string attention = layer + "self_attn.";
    all[attention + "q_proj.weight"] = {queries, hidden};
    all[attention + "k_proj.weight"] = all[attention + "v_proj.weight"] = {keys, hidden};
    all[attention + "o_proj.weight"] = {hidden, queries};
    if (biases) {
      all[attention + "q_proj.bias"] = {queries};
      all[attention + "k_proj.bias"] = all[attention + "v_proj.bias"] = {keys};
    }
    if (head_norms) all[attention + "q_norm.weight"] = all[attention + "k_norm.weight"] = {head_dim};
    if (!dense) return;
    all[layer + "mlp.gate_proj.weight"] = all[layer + "mlp.up_proj.weight"] = {width, hidden};
    all[layer + "mlp.down_proj.weight"] = {hidden, width};
  }
};

}  // namespace shoal::model
