// The first bytes of a TCP Link's connections. A hello is a u32 length and that many bytes: magic, version,
// purpose, nonce, epoch, ranks, instance, secret, sharing domain, segment. The caller says it first; the
// listener answers with its own only to a caller that proved itself. The nonce ties the two connections of
// one Link together. Two ends of the same sharing domain may use shared memory: the listener's answer on the
// data connection names a segment, and the caller's hello on the control connection names it again if it
// could open it.
#pragma once

#include <optional>

#include "base/clock.h"
#include "base/file.h"
#include "base/socket.h"
#include "link/tcp_link.h"

namespace shoal::link {

enum class Purpose : uint16_t { data = 1, control = 2 };

struct Hello {
  Purpose purpose = Purpose::data;
  uint64_t nonce = 0;
  Credentials credentials;      // of the one who says it
  uint64_t sharing_domain = 0;  // 0: without shared memory
  std::string segment = {};     // "" for none
};

inline constexpr size_t kMaxHelloBytes = 1024;

Bytes encode_hello(const Hello& hello);     // with the length in front
Result<Hello> decode_hello(ByteView body);  // without it
// Whether `hello` was said by the peer that `own` expects. Takes the same time for every wrong secret of a
// length.
bool proves(const Credentials& own, const Hello& hello);

// The caller's side on a connected socket: what the listener answered. A listener that hangs up is
// `unavailable`, a silent one `timeout`.
Result<Hello> introduce(const FileDescriptor& socket, const Hello& hello, const std::string& peer,
                        TimePoint deadline);

// The listener's side, without blocking: feeds what has arrived. An Error: drop the caller.
class HelloReceiver {
 public:
  // The hello when it is complete, nullopt while it is not.
  Result<std::optional<Hello>> receive(const FileDescriptor& socket);

 private:
  Bytes bytes_;
};
Result<> answer(const FileDescriptor& socket, const Hello& hello);

}  // namespace shoal::link
