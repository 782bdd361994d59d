// The verbs library of this machine, found when it is asked for: libibverbs on Linux, librdma.dylib (RDMA
// over Thunderbolt) on macOS. Nothing links against it; a machine without one gets a typed Error and goes on
// over tcp. The rules that the two kinds of provider impose on their users are here too, since they follow
// from the library.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/result.h"
#include "link/verbs_abi.h"

namespace shoal::link {

// What a provider asks of its users beyond the common verbs.
struct VerbsRules {
  bool reliable = true;                   // RC queue pairs may exist; else UC alone
  bool equal_frames = false;              // a SEND must cover as many frames of 4 KiB as the RECV it meets
  int access = verbs::kAccessLocalWrite;  // of queue pairs and memory regions
  verbs::Mtu largest_mtu = verbs::Mtu::bytes_4096;
  uint8_t hop_limit = 64;
  uint32_t slot_bytes = 64 << 10;  // of one SEND; 4 KiB * 2^k
  uint32_t slot_count = 32;        // at most, in each direction
  bool depth_in_frames = false;    // a queue pair's capacity counts frames, not requests

  static VerbsRules fabric();       // RoCE and InfiniBand
  static VerbsRules thunderbolt();  // what macOS allows
};

struct VerbsLibrary {
  // Addresses by symbol name; null for one that is absent.
  using Resolver = std::function<void*(const char* symbol)>;

  // Tries the names in order; the default ones are those of the two systems. unavailable: none is installed,
  // or one lacks a symbol. The library is never unloaded: its drivers keep threads.
  static Result<std::shared_ptr<const VerbsLibrary>> load();
  static Result<std::shared_ptr<const VerbsLibrary>> load_file(const std::string& file,
                                                               const VerbsRules& rules);
  static Result<std::shared_ptr<const VerbsLibrary>> from(const Resolver& resolve, const std::string& name,
                                                          const VerbsRules& rules);

  std::string name;
  VerbsRules rules;

  verbs::Device** (*get_device_list)(int* count) = nullptr;
  void (*free_device_list)(verbs::Device**) = nullptr;
  const char* (*get_device_name)(verbs::Device*) = nullptr;
  verbs::Context* (*open_device)(verbs::Device*) = nullptr;
  int (*close_device)(verbs::Context*) = nullptr;
  verbs::ProtectionDomain* (*alloc_pd)(verbs::Context*) = nullptr;
  int (*dealloc_pd)(verbs::ProtectionDomain*) = nullptr;
  verbs::CompletionQueue* (*create_cq)(verbs::Context*, int entries, void* user, verbs::CompletionChannel*,
                                       int vector) = nullptr;
  int (*destroy_cq)(verbs::CompletionQueue*) = nullptr;
  verbs::QueuePair* (*create_qp)(verbs::ProtectionDomain*, verbs::QueuePairCreation*) = nullptr;
  int (*destroy_qp)(verbs::QueuePair*) = nullptr;
  int (*query_port)(verbs::Context*, uint8_t port, verbs::PortAttributes*) = nullptr;
  int (*query_gid)(verbs::Context*, uint8_t port, int index, verbs::Gid*) = nullptr;
  int (*modify_qp)(verbs::QueuePair*, verbs::QueuePairAttributes*, int mask) = nullptr;
  verbs::MemoryRegion* (*reg_mr)(verbs::ProtectionDomain*, void* address, size_t bytes, int access) = nullptr;
  int (*dereg_mr)(verbs::MemoryRegion*) = nullptr;
};

}  // namespace shoal::link
