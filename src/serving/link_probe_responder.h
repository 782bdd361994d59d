// The side of a link's measurement that answers (link_probe.h): a thread with a listening port. Whoever
// brings a nonce that allow() gave out has its pings returned and its bytes counted; everybody else is hung
// up on without a byte. Bounded throughout: connections, the time of each, pings, bytes.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/file.h"
#include "base/result.h"
#include "serving/link_probe.h"

namespace shoal::serving {

class LinkProbeResponder {
 public:
  static constexpr size_t kMaxConnections = 8;
  static constexpr size_t kMaxAllowed = 64;
  static constexpr Duration kAllowedTime = seconds(10);  // in which a measurement must be over
  static constexpr Duration kHelloTime = milliseconds(1500);

  // Listens on one free port of all `addresses`. Errors: those of listen_tcp().
  static Result<std::unique_ptr<LinkProbeResponder>> start(const std::vector<std::string>& addresses);
  ~LinkProbeResponder();

  uint16_t port() const { return port_; }
  // A nonce for one measurement, which may take a connection for each address.
  ProbeNonce allow();
  void forget(const ProbeNonce& nonce);  // and hang up on who came with it
  void forget_all();
  bool busy();  // somebody may be measuring

 private:
  class Connection;
  LinkProbeResponder(std::vector<FileDescriptor> listeners, uint16_t port, FileDescriptor stop_read,
                     FileDescriptor stop_write);

  void serve();
  void accept_from(const FileDescriptor& listener);
  bool is_allowed(const ProbeNonce& nonce);

  std::vector<FileDescriptor> listeners_;
  uint16_t port_;
  FileDescriptor stop_read_, stop_write_;
  std::vector<std::unique_ptr<Connection>> connections_;  // of the thread alone
  std::mutex mutex_;                                      // guards allowed_
  std::map<ProbeNonce, TimePoint> allowed_;               // until when
  std::thread thread_;
};

}  // namespace shoal::serving
