#include "cluster/zenoh_config.h"

#include <charconv>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <optional>

#include "base/json.h"
#include "base/limits.h"
#include "base/socket.h"

namespace shoal::cluster {
namespace {

constexpr uint16_t kPeerPorts = 4;  // tried at a peer given without a port
constexpr uint32_t kKeepAlives = limits::kLeaseMs / limits::kHeartbeatMs;  // in a lease
constexpr uint32_t kRetryMinimumMs = 500, kRetryMaximumMs = 2000;

struct HostPort {
  std::string host;   // without brackets
  uint16_t port = 0;  // 0: not given
};

Result<HostPort> split(std::string_view text, std::string_view what) {
  auto wrong = [&] {
    return fail(ErrorCode::invalid_argument, fmt::format("{} '{}' is not HOST or HOST:PORT", what, text),
                "write IPv6 addresses with a port as [ADDRESS]:PORT");
  };
  HostPort out;
  std::string_view port;
  if (text.starts_with('[')) {
    size_t end = text.find(']');
    if (end == text.npos) return wrong();
    out.host = text.substr(1, end - 1);
    std::string_view rest = text.substr(end + 1);
    if (!rest.empty() && !rest.starts_with(':')) return wrong();
    if (!rest.empty()) port = rest.substr(1);
    if (!rest.empty() && port.empty()) return wrong();
  } else if (text.find(':') == text.rfind(':') && text.find(':') != text.npos) {
    out.host = text.substr(0, text.find(':'));
    port = text.substr(text.find(':') + 1);
    if (port.empty()) return wrong();
  } else {
    out.host = text;
  }
  constexpr std::string_view kHostCharacters =
      "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-_:%";
  if (out.host.empty() || out.host.find_first_not_of(kHostCharacters) != out.host.npos) return wrong();
  if (!port.empty()) {
    auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), out.port);
    if (error != std::errc() || end != port.data() + port.size() || out.port == 0) return wrong();
  }
  return out;
}

std::string endpoint(std::string_view host, uint16_t port) {
  return host.find(':') == host.npos ? fmt::format("tcp/{}:{}", host, port)
                                     : fmt::format("tcp/[{}]:{}", host, port);
}

bool is_loopback(std::string_view host) {
  return host == "::1" || host.starts_with("127.");
}

bool is_free(std::string_view host, uint16_t port) {
  auto address = SocketAddress::parse(host, port);
  return address && listen_tcp(*address, 1).has_value();
}

// The first free port of the range; nullopt when all are taken.
std::optional<uint16_t> free_port(std::string_view cluster, std::string_view host) {
  for (uint16_t i = 0; i < kPortRangeSize; ++i) {
    uint16_t port = static_cast<uint16_t>(first_port(cluster) + i);
    if (is_free(host, port)) return port;
  }
  return std::nullopt;
}

struct Listening {
  JsonArray endpoints;
  uint16_t port = 0;  // of the range; 0: none
};

Result<Listening> listening(const ZenohOptions& options, const HostPort& wanted) {
  Listening out;
  if (wanted.port != 0) {
    out.port = wanted.port;
    out.endpoints.emplace_back(endpoint(wanted.host, wanted.port));
    return out;
  }
  bool everywhere = wanted.host.empty();
  std::string host = everywhere ? "0.0.0.0" : wanted.host;
  out.port = free_port(options.cluster, host).value_or(0);
  out.endpoints.emplace_back(endpoint(host, out.port));
  if (out.port == 0) out.endpoints.emplace_back(endpoint("127.0.0.1", 0));
  for (const std::string& late : options.late_addresses) {
    if (everywhere && is_free(late, 0)) out.endpoints.emplace_back(endpoint(late, 0));
  }
  if (everywhere && is_free("::", 0)) out.endpoints.emplace_back(endpoint("::", 0));
  return out;
}

Result<JsonArray> connecting(const ZenohOptions& options, const HostPort& listen, uint16_t own_port) {
  JsonArray endpoints;
  uint16_t first = first_port(options.cluster);
  for (uint16_t port = first; port < first + kPortRangeSize; ++port) {
    if (port != own_port)
      endpoints.emplace_back(endpoint(is_loopback(listen.host) ? listen.host : "127.0.0.1", port));
  }
  for (const std::string& peer : options.peers) {
    SHOAL_TRY(HostPort at, split(peer, "peer"));
    uint16_t from = at.port != 0 ? at.port : first;
    uint16_t count = at.port != 0 ? 1 : kPeerPorts;
    for (uint16_t i = 0; i < count; ++i)
      endpoints.emplace_back(endpoint(at.host, static_cast<uint16_t>(from + i)));
  }
  return endpoints;
}

}  // namespace

uint64_t cluster_hash(std::string_view cluster) {
  uint64_t hash = 0xcbf29ce484222325;
  for (char c : cluster) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  return hash;
}

uint16_t first_port(std::string_view cluster) {
  return static_cast<uint16_t>(20000 + (cluster_hash(cluster) % 750) * kPortRangeSize);
}

uint16_t multicast_port(std::string_view cluster) {
  return static_cast<uint16_t>(10000 + (cluster_hash(cluster) >> 32) % 10000);
}

std::string key_prefix(std::string_view cluster) {
  return fmt::format("shoal/{:016x}", cluster_hash(cluster));
}

Result<std::string> zenoh_configuration(const ZenohOptions& options) {
  HostPort listen;
  if (!options.listen.empty()) {
    SHOAL_TRY(listen, split(options.listen, "listen address"));
    if (listen.host == "0.0.0.0") listen.host.clear();
    if (!listen.host.empty()) SHOAL_TRY_VOID(SocketAddress::parse(listen.host, listen.port));
    if (listen.host.empty() && listen.port != 0) listen.host = "0.0.0.0";
  }
  SHOAL_TRY(Listening own, listening(options, listen));
  SHOAL_TRY(JsonArray connect, connecting(options, listen, own.port));
  bool multicast = options.multicast && !is_loopback(listen.host);
  JsonObject retry{
      {"period_init_ms", kRetryMinimumMs}, {"period_max_ms", kRetryMaximumMs}, {"period_increase_factor", 2}};
  JsonObject configuration{
      {"mode", "peer"},
      {"listen", JsonObject{{"endpoints", std::move(own.endpoints)}, {"exit_on_failure", true}}},
      {"connect",
       JsonObject{{"endpoints", std::move(connect)}, {"exit_on_failure", false}, {"retry", retry}}},
      // Nodes that show up later are dealt with all the time; nothing is gained by waiting for the first
      // ones.
      {"open",
       JsonObject{{"return_conditions", JsonObject{{"connect_scouted", false}, {"declares", false}}}}},
      {"scouting",
       JsonObject{
           {"delay", 0},
           {"multicast",
            JsonObject{{"enabled", multicast},
                       {"address", fmt::format("224.0.0.224:{}", multicast_port(options.cluster))},
                       {"interface", options.late_addresses.empty()
                                         ? "auto"
                                         : fmt::format("{}", fmt::join(options.late_addresses, ","))}}},
           {"gossip", JsonObject{{"enabled", true}}}}},
      {"transport", JsonObject{{"link", JsonObject{{"tx", JsonObject{{"lease", options.lease_ms},
                                                                     {"keep_alive", kKeepAlives}}}}}}}};
  return to_text(configuration);
}

}  // namespace shoal::cluster
