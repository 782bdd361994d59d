// Model files made for one test, right or wrong.
#pragma once

#include <algorithm>
#include <filesystem>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <fstream>
#include <gtest/gtest.h>
#include <string>
#include <unistd.h>
#include <vector>

#include "base/bytes.h"

namespace shoal::formats {

// Collects tensors and gives the bytes of a safetensors file.
class SafetensorsWriter {
 public:
  SafetensorsWriter& tensor(std::string_view name, std::string_view dtype, const std::vector<uint64_t>& shape,
                            ByteView data) {
    if (!header_.empty()) header_ += ',';
    header_ += fmt::format(R"("{}":{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})", name, dtype,
                           fmt::join(shape, ","), data_.size(), data_.size() + data.size());
    data_.insert(data_.end(), data.begin(), data.end());
    return *this;
  }
  template <class T>
  SafetensorsWriter& values(std::string_view name, std::string_view dtype, const std::vector<uint64_t>& shape,
                            const std::vector<T>& values) {
    return tensor(name, dtype, shape, std::as_bytes(std::span(values)));
  }
  // So many bytes, all the same.
  SafetensorsWriter& filled(std::string_view name, std::string_view dtype, const std::vector<uint64_t>& shape,
                            size_t bytes) {
    return tensor(name, dtype, shape, Bytes(bytes, std::byte{0x38}));
  }
  Bytes bytes() const {
    std::string header = "{" + header_ + "}";
    header.resize((header.size() + 7) / 8 * 8, ' ');
    ByteWriter file;
    file.write(uint64_t{header.size()});
    file.append(as_bytes(header));
    file.append(data_);
    return file.take();
  }

 private:
  std::string header_;
  Bytes data_;
};

// Collects pairs and tensors and gives the bytes of a GGUF file.
class GgufWriter {
 public:
  GgufWriter& number(std::string_view key, uint32_t type, auto value) {
    ++pairs_;
    put_text(metadata_, key);
    metadata_.write(type);
    metadata_.write(value);
    return *this;
  }
  GgufWriter& text(std::string_view key, std::string_view value) {
    ++pairs_;
    put_text(metadata_, key);
    metadata_.write(uint32_t{8});
    put_text(metadata_, value);
    return *this;
  }
  GgufWriter& array(std::string_view key, uint32_t type, uint64_t count, ByteView elements) {
    ++pairs_;
    put_text(metadata_, key);
    metadata_.write(uint32_t{9});
    metadata_.write(type);
    metadata_.write(count);
    metadata_.append(elements);
    return *this;
  }
  // Dimensions innermost first, as in the file.
  GgufWriter& tensor(std::string_view name, std::vector<uint64_t> dimensions, uint32_t type,
                     uint64_t offset) {
    ++tensors_;
    put_text(infos_, name);
    infos_.write(static_cast<uint32_t>(dimensions.size()));
    infos_.append(std::as_bytes(std::span(dimensions)));
    infos_.write(type);
    infos_.write(offset);
    return *this;
  }
  Bytes finish(uint64_t data_bytes, uint32_t version = 3) {
    ByteWriter file;
    file.append(as_bytes("GGUF"));
    file.write(version);
    file.write(tensors_);
    file.write(pairs_);
    file.append(metadata_.bytes());
    file.append(infos_.bytes());
    Bytes bytes = file.take();
    bytes.resize((bytes.size() + 31) / 32 * 32 + data_bytes);
    return bytes;
  }
  Bytes finish_with(ByteView data) {
    Bytes bytes = finish(0);
    bytes.insert(bytes.end(), data.begin(), data.end());
    return bytes;
  }

 private:
  static void put_text(ByteWriter& out, std::string_view value) {
    out.write(uint64_t{value.size()});
    out.append(as_bytes(value));
  }

  ByteWriter metadata_, infos_;
  uint64_t pairs_ = 0, tensors_ = 0;
};

// A directory that goes with the test.
class MadeDirectory : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto* test = ::testing::UnitTest::GetInstance()->current_test_info();
    std::string name =
        fmt::format("shoal-formats-{}-{}-{}", ::getpid(), test->test_suite_name(), test->name());
    std::ranges::replace(name, '/', '-');
    directory_ = std::filesystem::temp_directory_path() / name;
    std::filesystem::remove_all(directory_);
    std::filesystem::create_directory(directory_);
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  void write(const std::string& name, std::string_view content) {
    std::ofstream(directory_ / name, std::ios::binary) << content;
  }
  void write(const std::string& name, ByteView content) { write(name, as_text(content)); }

  std::filesystem::path directory_;
};

}  // namespace shoal::formats
