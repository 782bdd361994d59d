#include "hub/digest.h"

#include <algorithm>

#include "base/file.h"
#include "hub/sha256.h"

namespace shoal::hub {
namespace {

constexpr uint64_t kSamples = 64;
constexpr uint64_t kSampleBytes = 4096;

void add_file(Sha256& hash, ByteView bytes, uint64_t header_bytes) {
  const uint64_t size = bytes.size();
  hash.update(std::as_bytes(std::span(&size, 1)));
  hash.update(bytes.first(std::min(header_bytes, size)));
  for (uint64_t sample = 0; sample < kSamples; ++sample) {
    const uint64_t offset = size / kSamples * sample;
    hash.update(bytes.subspan(offset, std::min(kSampleBytes, size - offset)));
  }
}

}  // namespace

Result<std::string> model_digest(const formats::Checkpoint& checkpoint) {
  Sha256 hash;
  for (uint32_t file = 0; file < checkpoint.files().size(); ++file) {
    SHOAL_TRY(MappedFile mapped, MappedFile::open(checkpoint.files()[file]));
    uint64_t header_bytes = mapped.bytes().size();
    for (const formats::TensorInfo& tensor : checkpoint.tensors())
      if (tensor.file == file) header_bytes = std::min(header_bytes, tensor.offset);
    add_file(hash, mapped.bytes(), header_bytes);
  }
  return hash.hex_digest();
}

}  // namespace shoal::hub
