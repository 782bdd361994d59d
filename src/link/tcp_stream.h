// Frames over one connected TCP socket.
#pragma once

#include <array>
#include <memory>
#include <sys/uio.h>

#include "link/frame_stream.h"

namespace shoal::link {

class TcpStream final : public FrameStream {
 public:
  TcpStream(FileDescriptor socket, std::string peer, uint32_t window_units, std::shared_ptr<BufferPool> pool);

  std::string_view kind() const override { return "tcp"; }
  Result<bool> send_ready() override;
  Result<bool> receive_ready() override;
  std::optional<short> watch(Interest interest) override;

 private:
  struct Share {
    size_t bytes = 0;
    bool perhaps_more = false;  // it filled all the space there was
  };
  Result<Share> read_some();
  Result<Share> read_expected();
  Result<Share> read_into(std::span<iovec> parts);
  Result<> take_expected(size_t bytes);
  Result<> begin_payload();
  Result<> parse();
  Result<> finish_frame();

  // What is read ahead of a payload's place: headers, small frames, the beginnings of unexpected ones.
  static constexpr size_t kStagingBytes = 128 << 10;
  std::unique_ptr<std::array<std::byte, kStagingBytes>> staging_;
  size_t staged_begin_ = 0;
  size_t staged_end_ = 0;
  size_t last_length_ = 0;  // of the last frame with a payload
  Buffer expected_;         // for the next one, should it be as long
};

}  // namespace shoal::link
