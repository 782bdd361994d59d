// The tables of nodes and links: what the cluster measured of itself.
#include <algorithm>
#include <fmt/format.h>

#include "cli/ask_commands.h"
#include "cli/json_cells.h"

namespace shoal::cli {
namespace {

using Align = Table::Align;

constexpr size_t kMostClasses = 12;  // columns; whatever a node of another version tells

// Three digits, and the unit that suits: "150 us", "20.1 ms", "940 Mb/s".
std::string scaled(double value, double step, std::initializer_list<std::string_view> units) {
  auto unit = units.begin();
  while (value >= 0.9995 * step && unit + 1 != units.end()) value /= step, ++unit;
  return fmt::format("{:.{}f} {}", value, value < 9.995 ? 2 : value < 99.95 ? 1 : 0, *unit);
}

std::string duration(const Json& value, std::string_view name) {
  const auto microseconds = number(value, name);
  return microseconds && *microseconds > 0 ? scaled(*microseconds, 1000, {"us", "ms", "s"}) : "-";
}

// In bits, as networks are named.
std::string bandwidth(const Json& value, std::string_view name) {
  const auto rate = number(value, name);
  return rate && *rate > 0 ? scaled(*rate * 8 / 1e3, 1000, {"kb/s", "Mb/s", "Gb/s"}) : "-";
}

// "1 Gb/s", "2.5 Gb/s", "100 Mb/s": interfaces have round figures.
std::string speed(const Json& link) {
  const auto mbps = number(link, "speed_mbps");
  if (!mbps || *mbps <= 0) return "-";
  return *mbps >= 1000 ? fmt::format("{:g} Gb/s", *mbps / 1000) : fmt::format("{:g} Mb/s", *mbps);
}

std::string age(const Json& link) {
  const auto seconds = number(link, "age_seconds");
  if (!seconds || *seconds < 0) return "-";
  if (*seconds < 120) return fmt::format("{:.0f} s", *seconds);
  if (*seconds < 7200) return fmt::format("{:.0f} min", *seconds / 60);
  return fmt::format("{:.0f} h", *seconds / 3600);
}

std::string kind_in_words(const Json& link) {
  const std::string kind = text(link, "kind");
  if (kind == "ethernet") return "Ethernet";
  if (kind == "wifi") return "Wi-Fi";
  if (kind == "thunderbolt") return "Thunderbolt";
  if (kind == "infiniband") return "InfiniBand";
  if (kind == "roce") return "RoCE";
  if (kind == "loopback") return "same machine";
  return kind == "unknown" ? "-" : kind;
}

// Rates by classes of weights, a column for each class that any node has.
std::string rates_table(const Json& cluster) {
  std::vector<std::string> classes;
  for (const Json& node : list(cluster, "nodes"))
    for (const Json& rate : list(node, "weight_rates"))
      if (classes.size() < kMostClasses && std::ranges::find(classes, text(rate, "weights")) == classes.end())
        classes.push_back(text(rate, "weights"));
  if (classes.empty()) return {};
  std::vector<Table::Column> columns = {{"PREFILL GFLOP/S"}};
  for (const std::string& name : classes) columns.push_back({name, Align::right});
  Table table(columns);
  for (const Json& node : list(cluster, "nodes")) {
    std::vector<std::string> row = {text(node, "name")};
    for (const std::string& name : classes) {
      row.emplace_back("-");
      for (const Json& rate : list(node, "weight_rates"))
        if (text(rate, "weights") == name) row.back() = decimal(rate, "prefill_flops_per_second", 0, 1e-9);
    }
    table.add(std::move(row));
  }
  return "\n" + table.text();
}

}  // namespace

std::string nodes_table(const Json& cluster) {
  Table table({{"NAME"},
               {"CPU"},
               {"CORES", Align::right},
               {"FREE", Align::right},
               {"MEMORY", Align::right},
               {"DECODE GB/S", Align::right},
               {"PREFILL GFLOP/S", Align::right},
               {"MODELS"},
               {"ADDRESS"},
               {"ID"}});
  for (const Json& node : list(cluster, "nodes")) {
    std::string models;
    for (const Json& model : list(node, "models"))
      models += (models.empty() ? "" : " ") + text(model, "name");
    const JsonArray& addresses = list(node, "addresses");
    const bool own = text(node, "id") == text(cluster, "self");
    table.add({text(node, "name") + (own ? " *" : ""), text(node, "cpu"), text(node, "cores"),
               bytes(node, "free_memory_bytes"), bytes(node, "total_memory_bytes"),
               decimal(node, "decode_bytes_per_second", 1, 1e-9),
               decimal(node, "prefill_flops_per_second", 0, 1e-9), models.empty() ? "-" : models,
               addresses.empty() || !addresses[0].is_string() ? "-" : printable(addresses[0].get_string()),
               text(node, "id")});
  }
  return table.text() + rates_table(cluster);
}

std::string links_table(const Json& cluster) {
  Table table({{"FROM"},
               {"TO"},
               {"KIND"},
               {"SPEED", Align::right},
               {"RTT P50", Align::right},
               {"RTT P99", Align::right},
               {"BANDWIDTH", Align::right},
               {"AGE", Align::right},
               {"BETWEEN"}});
  for (const Json& link : list(cluster, "links"))
    table.add({text(link, "from_name"), text(link, "to_name"), kind_in_words(link), speed(link),
               duration(link, "rtt_p50_us"), duration(link, "rtt_p99_us"),
               bandwidth(link, "bytes_per_second"), age(link),
               fmt::format("{} - {}", text(link, "local_address"), text(link, "peer_address"))});
  if (!table.empty()) return table.text();
  return list(cluster, "nodes").size() > 1
             ? "no link is measured yet; that takes some seconds after nodes meet\n"
             : "this node is alone; start `shoal serve` on another machine\n";
}

}  // namespace shoal::cli
