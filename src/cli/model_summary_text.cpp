#include <fmt/format.h>

#include "base/memory.h"
#include "cli/model_summary.h"
#include "cli/terminal.h"

namespace shoal::cli {
namespace {

// The summary is our own: its members are there and of their types.
uint64_t count(const JsonObject& object, std::string_view name) {
  return object.at(name).to_number<uint64_t>();
}

std::string text(const JsonObject& object, std::string_view name) {
  return printable(object.at(name).as_string());
}

std::string bytes(const JsonObject& object, std::string_view name) {
  return format_bytes(count(object, name));
}

// 8.19 B, 360 M, 12.3 k
std::string short_count(uint64_t value) {
  const auto number = static_cast<double>(value);
  if (value >= 1'000'000'000) return fmt::format("{:.2f} B", number / 1e9);
  if (value >= 1'000'000) return fmt::format("{:.1f} M", number / 1e6);
  return value >= 1000 ? fmt::format("{:.1f} k", number / 1e3) : fmt::format("{}", value);
}

std::string layers_text(const JsonObject& kind) {
  const uint64_t layers = count(kind, "layers");
  return fmt::format("{} layer{} ", layers, layers == 1 ? "" : "s");
}

std::string mixer_text(const JsonObject& mixer) {
  const std::string kind = text(mixer, "kind");
  const std::string layers = layers_text(mixer) + "of ";
  if (kind == "latent_attention")
    return layers + fmt::format("latent attention: {} heads of {}, latent of {}", count(mixer, "query_heads"),
                                count(mixer, "query_head_size"), count(mixer, "latent_rank"));
  if (kind == "delta_net")
    return layers + fmt::format("gated delta net: {} key heads of {}, {} value heads of {}",
                                count(mixer, "key_heads"), count(mixer, "key_head_size"),
                                count(mixer, "value_heads"), count(mixer, "value_head_size"));
  const std::string window =
      mixer.contains("window") ? fmt::format(" over {} tokens", count(mixer, "window")) : std::string();
  return layers + fmt::format("{}{}: {} heads of {}, {} of keys and values",
                              kind == "attention" ? "attention" : "sliding attention", window,
                              count(mixer, "query_heads"), count(mixer, "head_size"),
                              count(mixer, "kv_heads"));
}

std::string feed_forward_text(const JsonObject& part) {
  const std::string layers = layers_text(part);
  if (text(part, "kind") == "dense") return layers + fmt::format("dense: width {}", count(part, "width"));
  const std::string shared = part.contains("shared_width")
                                 ? fmt::format(", and a shared one of {}", count(part, "shared_width"))
                                 : std::string();
  return layers + fmt::format("of experts: {} of {} used, width {}{}", count(part, "experts_used"),
                              count(part, "experts"), count(part, "expert_width"), shared);
}

std::string types_text(const JsonArray& types) {
  std::string out;
  for (const Json& entry : types) {
    const JsonObject& type = entry.as_object();
    out +=
        fmt::format("{}{} {:.1f} % ({}, {} tensors)", out.empty() ? "" : ", ", text(type, "type"),
                    type.at("share").to_number<double>() * 100, bytes(type, "bytes"), count(type, "tensors"));
  }
  return out;
}

std::string weights_text(const JsonObject& summary) {
  const JsonObject& layer = summary.at("layer_bytes").as_object();
  const std::string per_layer = count(layer, "minimum") == count(layer, "maximum")
                                    ? fmt::format("{} a layer", bytes(layer, "median"))
                                    : fmt::format("{} a layer ({} to {})", bytes(layer, "median"),
                                                  bytes(layer, "minimum"), bytes(layer, "maximum"));
  const std::string ends =
      summary.at("tied_embedding").as_bool()
          ? fmt::format("embedding and head are one of {}", bytes(summary, "embedding_bytes"))
          : fmt::format("embedding {}, head {}", bytes(summary, "embedding_bytes"),
                        bytes(summary, "head_bytes"));
  return fmt::format("{}: {}, {} in all layers, {}", bytes(summary, "weight_bytes"), per_layer,
                     bytes(layer, "total"), ends);
}

std::string templates_text(const Json& templates) {
  if (templates.is_object()) return "cannot be used: " + text(templates.get_object(), "error");
  std::string out;
  for (const Json& name : templates.as_array())
    out += (out.empty() ? "" : ", ") + printable(name.as_string());
  return out.empty() ? "none" : out;
}

std::string tokenizer_text(const JsonObject& tokenizer) {
  if (tokenizer.contains("error")) return "cannot be used: " + text(tokenizer, "error");
  return fmt::format("{}, {} tokens", text(tokenizer, "kind"), count(tokenizer, "vocabulary_size"));
}

}  // namespace

std::string summary_text(const JsonObject& summary) {
  std::string out = text(summary, "name") + "\n";
  const auto add = [&out](std::string_view label, const std::string& value) {
    out += fmt::format("  {:<13} {}\n", label, value);
  };
  add("architecture", text(summary, "architecture"));
  const uint64_t all = count(summary, "parameters"), active = count(summary, "active_parameters");
  add("parameters",
      short_count(all) + (active == all ? "" : fmt::format(", {} of them for a token", short_count(active))));
  std::string_view label = "layers";
  for (const auto& [member, words] :
       {std::pair("mixers", &mixer_text), std::pair("feed_forwards", &feed_forward_text)}) {
    for (const Json& kind : summary.at(member).as_array()) {
      add(label, words(kind.as_object()));
      label = "";
    }
  }
  add("hidden size", fmt::format("{}", count(summary, "hidden_size")));
  add("context", fmt::format("{} tokens", count(summary, "context_tokens")));
  add("weights", weights_text(summary));
  add("types", types_text(summary.at("tensor_types").as_array()));
  const JsonObject& kv = summary.at("kv_bytes_per_token").as_object();
  add("KV cache",
      fmt::format("{} a token (f32 {}, q8 {})", bytes(kv, "f16"), bytes(kv, "f32"), bytes(kv, "q8")));
  if (count(summary, "state_bytes_per_sequence") > 0)
    add("state", bytes(summary, "state_bytes_per_sequence") + " a sequence");
  add("vocabulary", fmt::format("{} rows of the embedding", count(summary, "vocabulary_size")));
  add("tokenizer", tokenizer_text(summary.at("tokenizer").as_object()));
  add("chat template", templates_text(summary.at("chat_templates")));
  const JsonArray& files = summary.at("files").as_array();
  label = text(summary, "format") == "gguf" ? "GGUF" : "safetensors";
  for (const Json& file : files) {
    add(label, fmt::format("{} ({})", text(file.as_object(), "path"), bytes(file.as_object(), "bytes")));
    label = "";
  }
  return out;
}

}  // namespace shoal::cli
