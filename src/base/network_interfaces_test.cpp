// Interface kinds from a made-up /sys/class/net, and this machine's own interfaces.
#include "base/network_interfaces.h"

#include <fstream>
#include <gtest/gtest.h>

namespace shoal {
namespace {

class Sysfs : public ::testing::Test {
 protected:
  Sysfs() { std::filesystem::remove_all(root); }
  ~Sysfs() override { std::filesystem::remove_all(root); }

  void write(const std::string& file, const std::string& text) {
    std::filesystem::create_directories((root / file).parent_path());
    std::ofstream(root / file) << text;
  }
  void link(const std::string& target, const std::string& file) {
    std::filesystem::create_directories((root / file).parent_path());
    std::filesystem::create_symlink(target, root / file);
  }
  void expect(const std::string& name, InterfaceKind kind, uint32_t speed_mbps) {
    const InterfaceType type = interface_type_from_sysfs(root, name);
    EXPECT_EQ(to_string(type.kind), to_string(kind)) << name;
    EXPECT_EQ(type.speed_mbps, speed_mbps) << name;
  }

  const std::filesystem::path root = std::filesystem::path(testing::TempDir()) / "shoal-sysfs";
};

TEST_F(Sysfs, EveryKindIsToldApart) {
  write("lo/type", "772\n");
  write("eth0/type", "1\n");
  write("eth0/speed", "2500\n");
  write("eth0/device/vendor", "0x8086\n");
  write("wlan0/type", "1\n");
  write("wlan0/phy80211/name", "phy0\n");
  write("wlan1/type", "1\n");
  std::filesystem::create_directories(root / "wlan1/wireless");
  write("thunderbolt0/type", "1\n");
  link("../../../bus/thunderbolt", "thunderbolt0/device/subsystem");
  write("tb1/type", "1\n");
  link("../../../bus/thunderbolt/drivers/thunderbolt-net", "tb1/device/driver");
  write("ib0/type", "32\n");
  write("ib0/device/infiniband/mlx5_0/ports/1/rate", "100 Gb/sec (4X EDR)\n");
  write("rdma0/type", "1\n");
  write("rdma0/speed", "25000\n");
  write("rdma0/device/infiniband/mlx5_1/node_type", "1: CA\n");
  write("wg0/type", "65534\n");
  expect("lo", InterfaceKind::loopback, 0);
  expect("eth0", InterfaceKind::ethernet, 2500);
  expect("wlan0", InterfaceKind::wifi, 0);
  expect("wlan1", InterfaceKind::wifi, 0);
  expect("thunderbolt0", InterfaceKind::thunderbolt, 0);
  expect("tb1", InterfaceKind::thunderbolt, 0);
  expect("ib0", InterfaceKind::infiniband, 100'000);
  expect("rdma0", InterfaceKind::roce, 25'000);
  expect("wg0", InterfaceKind::tunnel, 0);
}

TEST_F(Sysfs, BridgesAndBondsAreWhatTheyAreMadeOf) {
  write("wlan0/type", "1\n");
  write("wlan0/phy80211/name", "phy0\n");
  write("br0/type", "1\n");
  write("br0/lower_wlan0/x", "");
  write("eth0/type", "1\n");
  write("eth0/speed", "1000\n");
  write("eth0/device/vendor", "0x8086\n");
  write("bond0/type", "1\n");
  write("bond0/speed", "2000\n");
  write("bond0/lower_eth0/x", "");
  write("vlan7/type", "1\n");
  write("vlan7/lower_bond0/x", "");
  expect("br0", InterfaceKind::wifi, 0);
  expect("bond0", InterfaceKind::ethernet, 2000);
  expect("vlan7", InterfaceKind::ethernet, 2000);
}

TEST_F(Sysfs, DamagedDescriptionsAreUnknownOrWithoutSpeed) {
  write("a/type", "rubbish\n");
  write("b/type", "1\n");
  write("b/speed", "-1\n");  // no carrier
  write("c/type", "1\n");
  write("c/speed", "1e300\n");
  write("d/type", "1\n");
  write("d/lower_d/x", "");  // made of itself
  write("e/type", std::string(100'000, '1'));
  expect("a", InterfaceKind::unknown, 0);
  expect("b", InterfaceKind::ethernet, 0);
  expect("c", InterfaceKind::ethernet, 0);
  expect("d", InterfaceKind::ethernet, 0);
  expect("e", InterfaceKind::unknown, 0);
  expect("missing", InterfaceKind::unknown, 0);
  expect("../etc", InterfaceKind::unknown, 0);
  expect("", InterfaceKind::unknown, 0);
}

TEST(NetworkInterfaces, OfThisMachineHaveAddressesThatAreFoundAgain) {
  const std::vector<NetworkInterface> interfaces = network_interfaces();
  const NetworkInterface* loopback = interface_with(interfaces, "127.0.0.1");
  ASSERT_NE(loopback, nullptr);
  EXPECT_EQ(to_string(loopback->type.kind), "loopback");
  EXPECT_EQ(interface_with(interfaces, "203.0.113.77"), nullptr);
}

}  // namespace
}  // namespace shoal
