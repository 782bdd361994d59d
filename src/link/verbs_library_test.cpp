// Finding a verbs library and the device that carries an address.
#include "link/verbs_library.h"

#include <cstring>
#include <gtest/gtest.h>

#include "link/fake_verbs.h"
#include "link/verbs_device.h"

namespace shoal::link {
namespace {

TEST(VerbsLibrary, AnAbsentOneIsUnavailableAndSaysWhatIsUsedInstead) {
  auto library = VerbsLibrary::load_file("libabsent.so.9", VerbsRules::fabric());
  ASSERT_FALSE(library);
  EXPECT_EQ(library.error().code, ErrorCode::unavailable);
  EXPECT_EQ(library.error().text(), "libabsent.so.9 cannot be loaded (tcp is used instead)");
}

TEST(VerbsLibrary, OneWithoutASymbolIsUnavailableAndNamesIt) {
  auto resolve = [](const char* symbol) {
    return std::strcmp(symbol, "ibv_query_gid") == 0 ? nullptr : FakeVerbs::symbol(symbol);
  };
  auto library = VerbsLibrary::from(resolve, "libold.so", VerbsRules::fabric());
  ASSERT_FALSE(library);
  EXPECT_EQ(library.error().code, ErrorCode::unavailable);
  EXPECT_EQ(library.error().message, "libold.so has no ibv_query_gid");
}

TEST(VerbsLibrary, TheSystemsOwnIsLoadedOrItsAbsenceToldWithoutCrashing) {
  auto library = VerbsLibrary::load();
  if (library) {
    for (const std::string& name : VerbsDevice::list(**library)) EXPECT_FALSE(name.empty());
  } else {
    EXPECT_EQ(library.error().code, ErrorCode::unavailable);
    EXPECT_NE(library.error().message.find("libibverbs.so.1"), std::string::npos) << library.error().message;
    EXPECT_NE(library.error().message.find("librdma.dylib"), std::string::npos) << library.error().message;
  }
}

TEST(VerbsDevice, IsTheOneWhosePortCarriesTheAddress) {
  FakeVerbs fake({.addresses = {"10.0.0.1", "192.168.7.1", "fd00::7"}});
  EXPECT_EQ(VerbsDevice::list(*fake.library()),
            (std::vector<std::string>{"rdma_en0", "rdma_en1", "rdma_en2"}));
  auto device = VerbsDevice::find(fake.library(), "192.168.7.1");
  ASSERT_TRUE(device) << device.error().text();
  EXPECT_EQ(device->name(), "rdma_en1");
  EXPECT_EQ(device->gid_index(), 1);
  EXPECT_EQ(VerbsDevice::find(fake.library(), "fd00::7").value().name(), "rdma_en2");
}

TEST(VerbsDevice, ThatNobodyHasIsNotFoundAndTheErrorNamesWhatThereIs) {
  FakeVerbs fake;
  fake.set_down(1);
  auto absent = VerbsDevice::find(fake.library(), "10.9.9.9");
  ASSERT_FALSE(absent);
  EXPECT_EQ(absent.error().code, ErrorCode::not_found);
  EXPECT_NE(absent.error().message.find("rdma_en0 has other addresses, rdma_en1 is down"), std::string::npos)
      << absent.error().message;
  auto down = VerbsDevice::find(fake.library(), "10.0.0.2");
  EXPECT_EQ(down.error().code, ErrorCode::not_found);
  EXPECT_EQ(VerbsDevice::find(fake.library(), "nonsense").error().code, ErrorCode::invalid_argument);
}

TEST(VerbsDevice, AGidIsAnIpv6AddressOrAnIpv4MappedIntoOne) {
  verbs::Gid mapped;
  mapped.raw = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 169, 254, 3, 1};
  EXPECT_EQ(gid_of_address("169.254.3.1").value(), mapped);
  EXPECT_EQ(gid_of_address("fe80::1").value().raw[0], 0xfe);
}

}  // namespace
}  // namespace shoal::link
