#include <cstdlib>
#include <filesystem>
#include <gtest/gtest.h>
#include <thread>

#include "base/bytes.h"
#include "base/cores.h"
#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"
#include "base/system.h"

namespace shoal {
namespace {

TEST(ByteReader, RefusesToReadPastTheEnd) {
  Bytes bytes(6);
  ByteReader reader(bytes);
  ASSERT_TRUE(reader.read<uint32_t>().has_value());
  auto past = reader.read<uint32_t>();
  ASSERT_FALSE(past.has_value());
  EXPECT_EQ(past.error().code, ErrorCode::malformed);
  EXPECT_NE(past.error().message.find("offset 4"), std::string::npos) << past.error().message;
}

TEST(ByteReader, ReadsBackWhatTheWriterWrote) {
  ByteWriter writer;
  writer.write<uint16_t>(513);
  writer.write_text("grüße");
  writer.write_vector<int32_t>(std::vector<int32_t>{-1, 7});
  ByteReader reader(writer.bytes());
  EXPECT_EQ(reader.read<uint16_t>().value(), 513);
  EXPECT_EQ(reader.read_text(100).value(), "grüße");
  EXPECT_EQ(reader.read_vector<int32_t>(2).value(), (std::vector<int32_t>{-1, 7}));
  EXPECT_EQ(reader.remaining(), 0u);
}

TEST(ByteReader, RefusesCountsOverTheLimitBeforeAllocating) {
  ByteWriter writer;
  writer.write<uint32_t>(0xffffffffu);
  EXPECT_FALSE(ByteReader(writer.bytes()).read_vector<uint64_t>(1000).has_value());
  EXPECT_FALSE(ByteReader(writer.bytes()).read_text(1000).has_value());
}

TEST(CheckedArithmetic, ReportsOverflow) {
  EXPECT_EQ(checked_multiply<uint64_t>(1ull << 33, 1ull << 31), std::nullopt);
  EXPECT_EQ(checked_add<uint64_t>(UINT64_MAX, 1), std::nullopt);
  EXPECT_EQ(checked_multiply<uint64_t>(6, 7), 42u);
}

TEST(Json, NamesTheFieldAndTheValueItRefuses) {
  auto object =
      parse_json_object(R"({"n": 2.5, "s": 7, "big": 1e9, "float_int": 8.0, "nothing": null})", "test")
          .value();
  auto fraction = get_integer(object, "n", 0, 10);
  ASSERT_FALSE(fraction.has_value());
  EXPECT_NE(fraction.error().message.find("'n' is 2.5"), std::string::npos) << fraction.error().message;
  EXPECT_FALSE(get_string(object, "s").has_value());
  EXPECT_FALSE(get_integer(object, "big", 0, 1000).has_value());
  EXPECT_EQ(get_integer(object, "float_int", 0, 10).value(), 8);
  EXPECT_EQ(get_integer(object, "nothing", 0, 10).value(), std::nullopt);
  EXPECT_FALSE(require_integer(object, "absent", 0, 10).has_value());
}

TEST(Json, TakesUnsignedNumbersThatFit) {
  EXPECT_EQ(get_integer(JsonObject{{"n", uint64_t{7}}}, "n", 0, 10).value(), 7);
  EXPECT_FALSE(get_integer(JsonObject{{"n", UINT64_MAX}}, "n", INT64_MIN, INT64_MAX).has_value());
}

TEST(Json, RefusesDeepNestingAndGarbage) {
  EXPECT_FALSE(parse_json(std::string(100000, '['), "deep").has_value());
  EXPECT_FALSE(parse_json("{\"a\": 1", "cut").has_value());
  EXPECT_FALSE(parse_json_object("[1]", "list").has_value());
}

TEST(File, WritesWholeFilesAndNamesMissingOnes) {
  auto path = std::filesystem::temp_directory_path() / ("shoal-base-test-" + std::to_string(random_u64()));
  ASSERT_TRUE(write_file_atomically(path, as_bytes("hello")).has_value());
  EXPECT_EQ(read_text_file(path, 100).value(), "hello");
  EXPECT_EQ(read_text_file(path, 4).error().code, ErrorCode::limit_exceeded);
  EXPECT_EQ(as_text(MappedFile::open(path).value().bytes()), "hello");
  std::filesystem::remove(path);
  EXPECT_EQ(MappedFile::open(path).error().code, ErrorCode::not_found);
  EXPECT_FALSE(read_text_file(std::filesystem::temp_directory_path(), 100).has_value());
}

TEST(Memory, ParsesAndFormatsSizes) {
  EXPECT_EQ(parse_bytes("512MiB").value(), 512ull << 20);
  EXPECT_EQ(parse_bytes("8G").value(), 8ull << 30);
  EXPECT_EQ(parse_bytes("1.5 GB").value(), 3ull << 29);
  EXPECT_EQ(parse_bytes("123456").value(), 123456u);
  EXPECT_EQ(parse_bytes("0.25k").value(), 256u);
  for (const char* bad : {"", "G", "-1", ".", "1.5.2", ".G", "8X", "1e40", "nan", "12 parsecs"})
    EXPECT_FALSE(parse_bytes(bad).has_value()) << bad;
  EXPECT_EQ(format_bytes(1536), "1.5 KiB");
}

TEST(Memory, HugeBuffersAreZeroedAndRefuseTheImpossible) {
  auto buffer = HugeBuffer::allocate(5 << 20, "test").value();
  for (std::byte b : buffer.bytes().first(4096)) ASSERT_EQ(b, std::byte{0});
  EXPECT_EQ(HugeBuffer::allocate(SIZE_MAX - 10, "test").error().code, ErrorCode::out_of_memory);
  EXPECT_EQ(HugeBuffer::allocate(1ull << 60, "test").error().code, ErrorCode::out_of_memory);
}

TEST(Cores, ReadsHowLinuxWritesThem) {
  using Numbers = std::vector<unsigned>;
  EXPECT_EQ(parse_number_list("0\n"), Numbers{0});
  EXPECT_EQ(parse_number_list("0-3,8,10-11\n"), (Numbers{0, 1, 2, 3, 8, 10, 11}));
  EXPECT_EQ(parse_number_list("5,1-2,2"), (Numbers{1, 2, 5}));
  for (const char* bad : {"", "\n", "a", "1-", "3-1", "1,,2", "0-99999999", "-1", "1 2"})
    EXPECT_EQ(parse_number_list(bad), std::nullopt) << bad;
}

TEST(Cores, ReadsTheQuotaOfACgroup) {
  EXPECT_EQ(parse_core_quota("200000 100000"), 2u);
  EXPECT_EQ(parse_core_quota("150000 100000"), 2u);
  EXPECT_EQ(parse_core_quota("10000 100000"), 1u);
  for (const char* bad : {"max 100000", "", "100000", "1 0", "18446744073709551615 1"})
    EXPECT_EQ(parse_core_quota(bad), std::nullopt) << bad;
}

TEST(Cores, AThreadStaysWhereItIsPut) {
  const std::vector<unsigned> all = usable_cores();
  ASSERT_GE(all.size(), 1u);
  EXPECT_FALSE(memory_nodes().empty());
  std::thread([&] {
    if (!stay_on_core(all.back())) return;  // not every system lets a thread choose
    EXPECT_EQ(usable_cores(), std::vector<unsigned>{all.back()});
  }).join();
  EXPECT_EQ(usable_cores(), all);
}

TEST(System, KnowsItsMachine) {
  EXPECT_GE(usable_core_count(), 1u);
  EXPECT_GT(available_memory_bytes(), 1u << 20);
  EXPECT_GE(total_memory_bytes(), available_memory_bytes());
  EXPECT_FALSE(executable_path().empty());
}

}  // namespace
}  // namespace shoal
