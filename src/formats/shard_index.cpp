#include "formats/shard_index.h"

#include <algorithm>
#include <boost/json/basic_parser_impl.hpp>
#include <fmt/format.h>
#include <map>

#include "base/file.h"
#include "base/limits.h"
#include "formats/layout.h"

namespace shoal::formats {
namespace {

// Receives the index's JSON as events, so that what nobody reads takes no memory:
//   { "metadata": { … }, "weight_map": { "tensor": "file", … } }
class IndexHandler {
 public:
  static constexpr size_t max_object_size = limits::kMaxTensors;
  static constexpr size_t max_array_size = limits::kMaxShardIndexBytes;
  static constexpr size_t max_key_size = limits::kMaxTensorNameBytes;
  static constexpr size_t max_string_size = limits::kMaxShardIndexBytes;
  using Text = std::string_view;
  using Code = boost::system::error_code;

  std::string fault;

  // The files sorted, and the tensors with their places there.
  ShardIndex take() {
    ShardIndex index;
    std::vector<uint32_t> sorted_place(files_.size());
    for (const auto& [name, number] : files_) {
      sorted_place[number] = static_cast<uint32_t>(index.files.size());
      index.files.push_back(name);
    }
    index.tensors = std::move(tensors_);
    for (auto& [name, file] : index.tensors) file = sorted_place[file];
    return index;
  }

  bool on_document_begin(Code&) { return true; }
  bool on_document_end(Code&) { return true; }
  bool on_object_begin(Code& code) {
    if (++depth_ == 2) in_weight_map_ = key_ == "weight_map";
    return !in_weight_map_ || depth_ == 2 || stop(code, "an object in 'weight_map'");
  }
  bool on_object_end(size_t, Code&) {
    if (--depth_ == 1) in_weight_map_ = false;
    return true;
  }
  bool on_array_begin(Code& code) {
    if (in_weight_map_) return stop(code, "a list in 'weight_map'");
    if (depth_ == 0 || (depth_ == 1 && key_ == "weight_map"))
      return stop(code, "a list where an object was expected");
    ++depth_;
    return true;
  }
  bool on_array_end(size_t, Code&) {
    --depth_;
    return true;
  }
  bool on_key_part(Text part, size_t, Code&) {
    append(part);
    return true;
  }
  bool on_key(Text part, size_t, Code&) {
    append(part);
    key_ = std::exchange(text_, {});
    return true;
  }
  bool on_string_part(Text part, size_t, Code&) {
    append(part);
    return true;
  }
  bool on_string(Text part, size_t, Code& code) {
    append(part);
    const std::string name = std::exchange(text_, {});
    return in_weight_map_ ? add_tensor(name, code) : on_value(code);
  }
  bool on_number_part(Text, Code&) { return true; }
  bool on_int64(int64_t, Text, Code& code) { return on_value(code); }
  bool on_uint64(uint64_t, Text, Code& code) { return on_value(code); }
  bool on_double(double, Text, Code& code) { return on_value(code); }
  bool on_bool(bool, Code& code) { return on_value(code); }
  bool on_null(Code& code) { return on_value(code); }
  bool on_comment_part(Text, Code&) { return true; }
  bool on_comment(Text, Code&) { return true; }

 private:
  // Longer than any name is as wrong as the first too many.
  void append(Text part) {
    text_.append(part.substr(
        0, limits::kMaxTensorNameBytes + 1 - std::min<size_t>(text_.size(), limits::kMaxTensorNameBytes)));
  }

  bool on_value(Code& code) {
    if (in_weight_map_) return add_tensor({}, code);
    return depth_ > 0 || stop(code, "not an object");
  }

  bool add_tensor(const std::string& file, Code& code) {
    if (!is_plain_name(file)) {
      return stop(code, fmt::format("tensor {} is said to be in {}, which is not a plain file name",
                                    quote(key_), quote(file)));
    }
    const auto place = files_.try_emplace(file, static_cast<uint32_t>(files_.size())).first;
    if (files_.size() > limits::kMaxShardFiles) {
      return stop(code, fmt::format("over the limit of {} files", limits::kMaxShardFiles));
    }
    tensors_.emplace_back(key_, place->second);
    return true;
  }

  bool stop(Code& code, std::string found) {
    code = boost::system::errc::make_error_code(boost::system::errc::invalid_argument);
    fault = std::move(found);
    return false;
  }

  int depth_ = 0;
  bool in_weight_map_ = false;
  std::string text_;                                    // of the key or text being read
  std::string key_;                                     // the last whole key
  std::map<std::string, uint32_t, std::less<>> files_;  // in the order of their names, numbered as they came
  std::vector<std::pair<std::string, uint32_t>> tensors_;
};

}  // namespace

bool is_plain_name(std::string_view name) {
  return !name.empty() && name != "." && name != ".." &&
         name.find_first_of(std::string_view("/\\\0", 3)) == name.npos;
}

Result<ShardIndex> parse_shard_index(std::string_view text) {
  boost::json::parse_options options;
  options.max_depth = limits::kMaxJsonDepth;
  boost::json::basic_parser<IndexHandler> parser(options);
  boost::system::error_code error;
  const size_t used = parser.write_some(false, text.data(), text.size(), error);
  if (const std::string& fault = parser.handler().fault; !fault.empty()) {
    return fail(ErrorCode::malformed, fmt::format("{}: {}", kShardIndexFile, fault));
  }
  if (error || text.find_first_not_of(" \t\r\n", used) != text.npos) {
    return fail(ErrorCode::malformed, fmt::format("{} is not valid JSON at byte {}: {}", kShardIndexFile,
                                                  used, error ? error.message() : "more after its end"));
  }
  ShardIndex index = parser.handler().take();
  if (index.tensors.empty()) {
    return fail(ErrorCode::malformed, fmt::format("{}: 'weight_map' is missing or empty", kShardIndexFile));
  }
  return index;
}

Result<ShardIndex> read_shard_index(const std::filesystem::path& directory) {
  SHOAL_TRY(const std::string text, read_text_file(directory / kShardIndexFile, limits::kMaxShardIndexBytes));
  return parse_shard_index(text);
}

Result<> check_against_index(std::span<const StoredTensor> stored, const ShardIndex& index) {
  std::vector<std::pair<std::string_view, uint32_t>> held;
  held.reserve(stored.size());
  for (const auto& [tensor, file] : stored) held.emplace_back(tensor.name, file);
  std::ranges::sort(held);
  for (const auto& [name, file] : index.tensors) {
    if (std::ranges::binary_search(held, std::pair(std::string_view(name), file))) continue;
    return fail(ErrorCode::malformed, fmt::format("{} says that tensor {} is in {}, but it is not",
                                                  kShardIndexFile, quote(name), quote(index.files[file])));
  }
  return {};
}

}  // namespace shoal::formats
