// A blocking HTTP client for tests that sees and sends raw bytes, and requests to send with it.
#pragma once

#include <arpa/inet.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <string>
#include <string_view>
#include <sys/socket.h>
#include <utility>

#include "base/file.h"

namespace shoal::api {

inline constexpr int kPatienceMs =
    20'000;  // far beyond what anything here takes; only a failure waits so long

// A blocking client that sees raw bytes.
class Client {
 public:
  explicit Client(uint16_t port, in_addr_t host = INADDR_LOOPBACK)
      : socket_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(host);
    EXPECT_EQ(::connect(socket_.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  }

  void send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t sent = ::send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent <= 0) return;
      bytes.remove_prefix(static_cast<size_t>(sent));
    }
  }
  // Reads until the text holds `end`, or to the end of the connection.
  std::string read_until(std::string_view end) {
    while (end.empty() || !seen_.contains(end)) {
      pollfd waiting{socket_.get(), POLLIN, 0};
      if (::poll(&waiting, 1, kPatienceMs) != 1) return seen_ + "<<timeout>>";
      char block[4096];
      const ssize_t got = ::recv(socket_.get(), block, sizeof(block), 0);
      if (got <= 0) return std::exchange(seen_, {});
      seen_.append(block, static_cast<size_t>(got));
    }
    const size_t length = seen_.find(end) + end.size();
    std::string text = seen_.substr(0, length);
    seen_.erase(0, length);
    return text;
  }
  std::string read_all() { return read_until(""); }
  void close() { socket_.reset(); }

 private:
  FileDescriptor socket_;
  std::string seen_;
};

inline std::string post(std::string_view path, std::string_view body, std::string_view extra = "") {
  return fmt::format(
      "POST {} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: "
      "{}\r\n{}\r\n{}",
      path, body.size(), extra, body);
}

inline std::string chat(std::string_view model, std::string_view members = "") {
  return post("/v1/chat/completions",
              fmt::format(R"({{"model":"{}","messages":[{{"role":"user","content":"hi"}}]{}{}}})", model,
                          members.empty() ? "" : ",", members));
}

}  // namespace shoal::api
