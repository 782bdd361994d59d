#include "link/tcp_handshake.h"

#include <array>
#include <cerrno>
#include <cstring>
#include <fmt/format.h>

namespace shoal::link {
namespace {

constexpr uint32_t kHelloMagic = 0x4c4f4853;  // "SHOL"
constexpr uint16_t kVersion = 2;
constexpr uint64_t kMaxTextBytes = 256;
constexpr uint64_t kMaxSegmentNameBytes = 64;
constexpr size_t kLengthBytes = 4;

bool equal_in_constant_time(std::string_view expected, std::string_view given) {
  unsigned difference = expected.size() == given.size() ? 0 : 1;
  for (size_t i = 0; i < given.size(); ++i) {
    char other = expected.empty() ? '\0' : expected[i % expected.size()];
    difference |= static_cast<unsigned char>(given[i] ^ other);
  }
  return difference == 0;
}

}  // namespace

Bytes encode_hello(const Hello& hello) {
  ByteWriter body;
  body.write(kHelloMagic);
  body.write(kVersion);
  body.write(hello.purpose);
  body.write(hello.nonce);
  body.write(hello.credentials.epoch);
  body.write(hello.credentials.rank);
  body.write(hello.credentials.peer_rank);
  body.write_text(hello.credentials.instance);
  body.write_text(hello.credentials.secret);
  body.write(hello.sharing_domain);
  body.write_text(hello.segment);
  ByteWriter whole;
  whole.write(static_cast<uint32_t>(body.bytes().size()));
  whole.append(body.bytes());
  return whole.take();
}

Result<Hello> decode_hello(ByteView body) {
  ByteReader reader(body);
  SHOAL_TRY(auto magic, reader.read<uint32_t>());
  SHOAL_TRY(auto version, reader.read<uint16_t>());
  if (magic != kHelloMagic || version != kVersion)
    return fail(ErrorCode::malformed, "not a hello of this version");
  Hello hello;
  SHOAL_TRY(auto purpose, reader.read<uint16_t>());
  if (purpose != 1 && purpose != 2)
    return fail(ErrorCode::malformed, fmt::format("hello purpose {}", purpose));
  hello.purpose = static_cast<Purpose>(purpose);
  SHOAL_TRY(hello.nonce, reader.read<uint64_t>());
  SHOAL_TRY(hello.credentials.epoch, reader.read<uint32_t>());
  SHOAL_TRY(hello.credentials.rank, reader.read<uint32_t>());
  SHOAL_TRY(hello.credentials.peer_rank, reader.read<uint32_t>());
  SHOAL_TRY(hello.credentials.instance, reader.read_text(kMaxTextBytes));
  SHOAL_TRY(hello.credentials.secret, reader.read_text(kMaxTextBytes));
  SHOAL_TRY(hello.sharing_domain, reader.read<uint64_t>());
  SHOAL_TRY(hello.segment, reader.read_text(kMaxSegmentNameBytes));
  if (reader.remaining() != 0) return fail(ErrorCode::malformed, "hello with bytes behind it");
  return hello;
}

bool proves(const Credentials& own, const Hello& hello) {
  const Credentials& other = hello.credentials;
  bool secret = equal_in_constant_time(own.secret, other.secret);
  return secret && other.instance == own.instance && other.epoch == own.epoch &&
         other.rank == own.peer_rank && other.peer_rank == own.rank;
}

Result<Hello> introduce(const FileDescriptor& socket, const Hello& hello, const std::string& peer,
                        TimePoint deadline) {
  SHOAL_TRY_VOID(answer(socket, hello));
  HelloReceiver receiver;
  while (true) {
    auto reply = receiver.receive(socket);
    if (!reply) {
      return fail(ErrorCode::unavailable,
                  fmt::format("{} refused the handshake: {}", peer, reply.error().message),
                  "its instance, epoch or secret may differ");
    }
    if (*reply) {
      if (proves(hello.credentials, **reply) && (*reply)->nonce == hello.nonce) return std::move(**reply);
      return fail(ErrorCode::unavailable, fmt::format("{} is not the peer it should be", peer));
    }
    if (!wait_readable(socket.get(), deadline)) {
      return fail(ErrorCode::timeout, fmt::format("{} did not answer the handshake", peer));
    }
  }
}

Result<std::optional<Hello>> HelloReceiver::receive(const FileDescriptor& socket) {
  while (true) {
    size_t wanted = kLengthBytes;
    if (bytes_.size() >= kLengthBytes) {
      uint32_t length;
      std::memcpy(&length, bytes_.data(), sizeof(length));
      if (length > kMaxHelloBytes) return fail(ErrorCode::malformed, "hello too long");
      wanted += length;
      if (bytes_.size() == wanted) {
        SHOAL_TRY(Hello hello, decode_hello(ByteView(bytes_).subspan(kLengthBytes)));
        return hello;
      }
    }
    // Never reads beyond the hello: what follows belongs to the Link.
    std::array<std::byte, kMaxHelloBytes + kLengthBytes> chunk;
    Transfer transfer = receive_some(socket.get(), std::span(chunk).first(wanted - bytes_.size()));
    if (transfer.status == TransferStatus::would_block) return std::nullopt;
    if (transfer.status != TransferStatus::moved) return fail(ErrorCode::unavailable, "it hung up");
    bytes_.insert(bytes_.end(), chunk.begin(), chunk.begin() + static_cast<std::ptrdiff_t>(transfer.bytes));
  }
}

Result<> answer(const FileDescriptor& socket, const Hello& hello) {
  Bytes bytes = encode_hello(hello);
  iovec part{bytes.data(), bytes.size()};
  Transfer transfer = send_some(socket.get(), std::span(&part, 1));
  // A fresh socket has room for a hello; one that has not is no peer.
  if (transfer.status == TransferStatus::moved && transfer.bytes == bytes.size()) return {};
  return fail(ErrorCode::unavailable, "the peer hung up in the handshake");
}

}  // namespace shoal::link
