#include <filesystem>
#include <fstream>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/file.h"
#include "hub/model_store.h"
#include "hub/sha256.h"

namespace shoal::hub {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

const fs::path kSource = SHOAL_SOURCE_DIR;

// A folder of its own, gone at the end.
class Folder {
 public:
  Folder() {
    std::string pattern = (fs::temp_directory_path() / "shoal-hub-XXXXXX").string();
    path_ = ::mkdtemp(pattern.data());
  }
  ~Folder() { fs::remove_all(path_); }
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

std::string digest_of(std::string_view text) {
  Sha256 hash;
  hash.update(as_bytes(text));
  return hash.hex_digest();
}

TEST(Sha256, MatchesThePublishedVectors) {
  EXPECT_EQ(digest_of(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(digest_of("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(digest_of("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(digest_of(std::string(1'000'000, 'a')),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256, DoesNotDependOnHowTheBytesArrive) {
  const std::string text(300, 'x');
  for (size_t cut = 0; cut <= text.size(); cut += 7) {
    Sha256 hash;
    hash.update(as_bytes(text.substr(0, cut)));
    hash.update(as_bytes(text.substr(cut)));
    EXPECT_EQ(hash.hex_digest(), digest_of(text));
  }
}

TEST(ModelStore, FindsTheBundledDemoUnderItsName) {
  const ModelStore store({kSource / "models/demo"});
  const Result<StoredModel> model = store.resolve("shoal-demo");
  ASSERT_TRUE(model.has_value()) << model.error().text();
  EXPECT_EQ(model->architecture, "qwen3");
  EXPECT_EQ(model->bytes, fs::file_size(kSource / "models/demo/shoal-demo-q8_0.gguf"));
  EXPECT_EQ(model->digest.size(), 64u);
  EXPECT_EQ(store.resolve("shoal-demo:latest")->path, model->path);
  EXPECT_EQ(store.resolve_digest(model->digest)->name, "shoal-demo");
  ASSERT_EQ(store.list().size(), 1u);
}

TEST(ModelStore, EqualFilesHaveEqualDigestsWhateverTheyAreCalledAndChangedOnesDoNot) {
  Folder folder;
  const fs::path demo = kSource / "models/demo/shoal-demo-q8_0.gguf";
  fs::copy_file(demo, folder.path() / "copy.gguf");
  fs::copy_file(demo, folder.path() / "tuned.gguf");
  {
    // The same header and size; only weights differ, all of them.
    std::fstream file(folder.path() / "tuned.gguf", std::ios::in | std::ios::out | std::ios::binary);
    const auto size = static_cast<std::streamoff>(fs::file_size(demo));
    const std::string noise(static_cast<size_t>(size / 2), 'n');
    file.seekp(size - static_cast<std::streamoff>(noise.size()));
    file.write(noise.data(), static_cast<std::streamsize>(noise.size()));
  }
  const ModelStore store({folder.path(), kSource / "models/demo"});
  const std::string digest = store.resolve("shoal-demo")->digest;
  EXPECT_EQ(store.resolve("copy")->digest, digest);
  EXPECT_NE(store.resolve("tuned")->digest, digest);
}

TEST(ModelStore, AChangedFileIsReadAgain) {
  Folder folder;
  const fs::path file = folder.path() / "model.gguf";
  fs::copy_file(kSource / "models/demo/shoal-demo-q8_0.gguf", file);
  const ModelStore store({folder.path()});
  ASSERT_TRUE(store.resolve("model").has_value());
  fs::resize_file(file, 1000);
  EXPECT_FALSE(store.resolve("model").has_value());
  EXPECT_TRUE(store.list().empty());
}

TEST(ModelStore, AcceptsAPathAsNameAndListsItFromThenOn) {
  const ModelStore store({});
  const std::string path = (kSource / "models/demo/shoal-demo-q8_0.gguf").string();
  EXPECT_TRUE(store.list().empty());
  const Result<StoredModel> model = store.resolve(path);
  ASSERT_TRUE(model.has_value()) << model.error().text();
  EXPECT_EQ(model->name, path);
  EXPECT_EQ(store.list().size(), 1u);
}

TEST(ModelStore, UnknownNamesHintAtNearOnes) {
  const ModelStore store({kSource / "models/demo"});
  const Result<StoredModel> model = store.resolve("shoal-dmeo");
  ASSERT_FALSE(model.has_value());
  EXPECT_EQ(model.error().code, ErrorCode::not_found);
  EXPECT_THAT(model.error().message, HasSubstr("'shoal-dmeo'"));
  EXPECT_EQ(model.error().hint, "did you mean 'shoal-demo'?");
  EXPECT_EQ(store.resolve("gpt-oss-120b").error().hint, "held here: 'shoal-demo'");
  EXPECT_EQ(ModelStore({}).resolve("x").error().hint, "");
}

TEST(ModelStore, HostileNamesAreOnlyNames) {
  const ModelStore store({kSource / "models/demo"});
  for (const std::string& name :
       {std::string(), std::string(100'000, 'a'), std::string("a\0b", 3), std::string("../")})
    EXPECT_FALSE(store.resolve(name).has_value());
}

}  // namespace
}  // namespace shoal::hub
