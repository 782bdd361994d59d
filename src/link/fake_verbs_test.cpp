// The symbols of the fake provider, and the handle that tests hold.
#include "link/fake_verbs.h"

#include <cerrno>
#include <future>
#include <gtest/gtest.h>

#include "link/fake_world.h"

namespace shoal::link {
namespace {

using verbs::QueuePairType;

FakeWorld* current = nullptr;  // the symbols of a library have no other way to find it

verbs::Device** get_device_list(int* count) {
  std::lock_guard lock(current->mutex);
  *count = static_cast<int>(current->devices.size());
  auto** list = new verbs::Device*[current->devices.size()];
  for (size_t i = 0; i < current->devices.size(); ++i)
    list[i] = reinterpret_cast<verbs::Device*>(&current->devices[i]);
  return list;
}
void free_device_list(verbs::Device** list) {
  delete[] list;
}
const char* get_device_name(verbs::Device* device) {
  return reinterpret_cast<FakeDevice*>(device)->name.c_str();
}

int poll_completions(verbs::CompletionQueue* queue, int count, verbs::Completion* into) {
  std::lock_guard lock(current->mutex);
  auto& ready = static_cast<FakeCompletions*>(queue)->ready;
  int taken = 0;
  for (; taken < count && !ready.empty(); ++taken) {
    into[taken] = ready.front();
    ready.pop_front();
  }
  return taken;
}

int post_send(verbs::QueuePair* handle, verbs::SendRequest* request, verbs::SendRequest** refused) {
  std::lock_guard lock(current->mutex);
  auto& pair = *static_cast<FakePair*>(handle);
  *refused = request;
  if (current->refused("post_send")) return EINVAL;
  if (request->next != nullptr) return current->broken("one request at a time");
  if (pair.state != verbs::QueuePairState::rts) return current->broken("SENDs are posted at RTS");
  if (request->opcode != verbs::kOpcodeSend) return current->broken("SEND is the only operation");
  if (request->flags != verbs::kSendSignaled) return current->broken("SENDs are signalled, and nothing else");
  int error =
      current->post(pair, pair.sends, pair.send_capacity, request->id, request->pieces, request->piece_count);
  if (error == 0) current->pump();
  return error;
}

int post_receive(verbs::QueuePair* handle, verbs::ReceiveRequest* request, verbs::ReceiveRequest** refused) {
  std::lock_guard lock(current->mutex);
  auto& pair = *static_cast<FakePair*>(handle);
  *refused = request;
  if (current->refused("post_recv")) return EINVAL;
  if (request->next != nullptr) return current->broken("one request at a time");
  bool early = current->options.thunderbolt ? pair.state != verbs::QueuePairState::rts
                                            : pair.state == verbs::QueuePairState::reset;
  if (early) return current->broken("a RECV was posted too early");
  int error = current->post(pair, pair.receives, pair.receive_capacity, request->id, request->pieces,
                            request->piece_count);
  if (error == 0) current->pump();
  return error;
}

verbs::Context* open_device(verbs::Device* device) {
  std::lock_guard lock(current->mutex);
  if (current->refused("ibv_open_device")) return nullptr;
  auto* context = new FakeContext{};
  context->device = device;
  context->operations.poll_completions = poll_completions;
  context->operations.post_send = post_send;
  context->operations.post_receive = post_receive;
  context->fake = reinterpret_cast<FakeDevice*>(device);
  current->others.insert(context);
  return context;
}
int close_device(verbs::Context* handle) {
  std::lock_guard lock(current->mutex);
  auto* context = static_cast<FakeContext*>(handle);
  if (context->users != 0) return current->broken("a device was closed under its objects");
  current->others.erase(context);
  delete context;
  return 0;
}

verbs::ProtectionDomain* alloc_pd(verbs::Context* context) {
  std::lock_guard lock(current->mutex);
  auto* domain = new FakeDomain{};
  domain->context = context;
  ++static_cast<FakeContext*>(context)->users;
  current->others.insert(domain);
  return domain;
}
int dealloc_pd(verbs::ProtectionDomain* handle) {
  std::lock_guard lock(current->mutex);
  auto* domain = static_cast<FakeDomain*>(handle);
  if (domain->users != 0) return current->broken("a protection domain was freed under its objects", EBUSY);
  --static_cast<FakeContext*>(domain->context)->users;
  current->others.erase(domain);
  delete domain;
  return 0;
}

verbs::CompletionQueue* create_cq(verbs::Context* context, int entries, void*,
                                  verbs::CompletionChannel* channel, int) {
  std::lock_guard lock(current->mutex);
  if (current->refused("ibv_create_cq") || channel != nullptr) {
    errno = channel == nullptr ? EINVAL : EOPNOTSUPP;
    return nullptr;
  }
  auto* queue = new FakeCompletions{};
  queue->context = context;
  queue->entries = entries;
  ++static_cast<FakeContext*>(context)->users;
  current->others.insert(queue);
  return queue;
}
int destroy_cq(verbs::CompletionQueue* handle) {
  std::lock_guard lock(current->mutex);
  auto* queue = static_cast<FakeCompletions*>(handle);
  if (queue->users != 0)
    return current->broken("a completion queue was destroyed under its queue pairs", EBUSY);
  --static_cast<FakeContext*>(queue->context)->users;
  current->others.erase(queue);
  delete queue;
  return 0;
}

int creation_error(const FakeDevice& device, const verbs::QueuePairCreation& creation) {
  const FakeVerbsOptions& options = current->options;
  if (current->refused("ibv_create_qp")) return EINVAL;
  bool has_type = creation.type == QueuePairType::uc || (options.reliable && !options.thunderbolt);
  if (!has_type || creation.shared_queue != nullptr || creation.capacity.inline_bytes != 0) return EOPNOTSUPP;
  const verbs::QueuePairCapacity& capacity = creation.capacity;
  if (capacity.send_pieces != 1 || capacity.receive_pieces != 1) return EINVAL;
  if (device.queue_pairs >= options.queue_pairs) return EBUSY;
  if (capacity.send_requests > options.depth || capacity.receive_requests > options.depth) return EINVAL;
  return 0;
}

verbs::QueuePair* create_qp(verbs::ProtectionDomain* domain, verbs::QueuePairCreation* creation) {
  std::lock_guard lock(current->mutex);
  FakeDevice& device = *static_cast<FakeContext*>(domain->context)->fake;
  if (int error = creation_error(device, *creation); error != 0) {
    errno = error;
    return nullptr;
  }
  auto* pair = new FakePair{};
  pair->context = domain->context;
  pair->domain = domain;
  pair->send_queue = creation->send_queue;
  pair->receive_queue = creation->receive_queue;
  pair->number = ++current->last_number;
  pair->type = creation->type;
  pair->send_capacity = creation->capacity.send_requests;
  pair->receive_capacity = creation->capacity.receive_requests;
  pair->device = &device;
  ++device.queue_pairs;
  ++static_cast<FakeDomain*>(domain)->users;
  ++static_cast<FakeCompletions*>(pair->send_queue)->users;
  ++static_cast<FakeCompletions*>(pair->receive_queue)->users;
  current->pairs[pair->number] = pair;
  return pair;
}
int destroy_qp(verbs::QueuePair* handle) {
  std::lock_guard lock(current->mutex);
  auto* pair = static_cast<FakePair*>(handle);
  --pair->device->queue_pairs;
  --static_cast<FakeDomain*>(pair->domain)->users;
  --static_cast<FakeCompletions*>(pair->send_queue)->users;
  --static_cast<FakeCompletions*>(pair->receive_queue)->users;
  current->pairs.erase(pair->number);
  delete pair;
  return 0;
}

int query_port(verbs::Context* context, uint8_t port, verbs::PortAttributes* attributes) {
  std::lock_guard lock(current->mutex);
  if (port != 1) return current->broken("port 1 is the only one");
  bool active = static_cast<FakeContext*>(context)->fake->active;
  attributes->state = active ? verbs::PortState::active : verbs::PortState::down;
  attributes->active_mtu = verbs::Mtu::bytes_4096;
  attributes->gid_count = 2;
  return 0;
}
int query_gid(verbs::Context* context, uint8_t, int index, verbs::Gid* gid) {
  std::lock_guard lock(current->mutex);
  *gid = {};
  gid->raw = {0xfe, 0x80};  // the first is link-local
  if (index == 1) *gid = static_cast<FakeContext*>(context)->fake->gid;
  return index <= 1 ? 0 : EINVAL;
}
int modify_qp(verbs::QueuePair* pair, verbs::QueuePairAttributes* attributes, int mask) {
  std::lock_guard lock(current->mutex);
  if (current->refused("ibv_modify_qp")) return EINVAL;
  return current->modify(*static_cast<FakePair*>(pair), *attributes, mask);
}

verbs::MemoryRegion* reg_mr(verbs::ProtectionDomain* domain, void* address, size_t bytes, int access) {
  std::lock_guard lock(current->mutex);
  const FakeVerbsOptions& options = current->options;
  int error = current->regions.size() >= options.regions ? ENOMEM : 0;
  bool aligned = reinterpret_cast<uint64_t>(address) % kVerbsFrameBytes == 0 && bytes % kVerbsFrameBytes == 0;
  bool allowed = (access & verbs::kAccessLocalWrite) != 0 &&
                 (!options.thunderbolt || (access & verbs::kAccessRemoteWrite) != 0);
  if (!aligned || !allowed || bytes > options.region_bytes)
    error = current->broken("a region that none may have");
  if (error != 0) {
    errno = error;
    return nullptr;
  }
  auto* region = new verbs::MemoryRegion{};
  region->domain = domain;
  region->address = address;
  region->length = bytes;
  region->lkey = ++current->last_number;
  ++static_cast<FakeDomain*>(domain)->users;
  current->regions[region->lkey] = region;
  return region;
}
int dereg_mr(verbs::MemoryRegion* region) {
  std::lock_guard lock(current->mutex);
  for (auto& [number, pair] : current->pairs) {
    if (pair->domain == region->domain)
      return current->broken("a region was freed under a queue pair", EBUSY);
  }
  --static_cast<FakeDomain*>(region->domain)->users;
  current->regions.erase(region->lkey);
  delete region;
  return 0;
}

}  // namespace

void* FakeVerbs::symbol(const char* name) {
  const std::map<std::string, void*> symbols = {
      {"ibv_get_device_list", reinterpret_cast<void*>(get_device_list)},
      {"ibv_free_device_list", reinterpret_cast<void*>(free_device_list)},
      {"ibv_get_device_name", reinterpret_cast<void*>(get_device_name)},
      {"ibv_open_device", reinterpret_cast<void*>(open_device)},
      {"ibv_close_device", reinterpret_cast<void*>(close_device)},
      {"ibv_alloc_pd", reinterpret_cast<void*>(alloc_pd)},
      {"ibv_dealloc_pd", reinterpret_cast<void*>(dealloc_pd)},
      {"ibv_create_cq", reinterpret_cast<void*>(create_cq)},
      {"ibv_destroy_cq", reinterpret_cast<void*>(destroy_cq)},
      {"ibv_create_qp", reinterpret_cast<void*>(create_qp)},
      {"ibv_destroy_qp", reinterpret_cast<void*>(destroy_qp)},
      {"ibv_query_port", reinterpret_cast<void*>(query_port)},
      {"ibv_query_gid", reinterpret_cast<void*>(query_gid)},
      {"ibv_modify_qp", reinterpret_cast<void*>(modify_qp)},
      {"ibv_reg_mr", reinterpret_cast<void*>(reg_mr)},
      {"ibv_dereg_mr", reinterpret_cast<void*>(dereg_mr)},
  };
  auto found = symbols.find(name);
  return found == symbols.end() ? nullptr : found->second;
}

FakeVerbs::FakeVerbs(const FakeVerbsOptions& options) : world_(std::make_unique<FakeWorld>(options)) {
  EXPECT_EQ(current, nullptr) << "one fake provider at a time";
  current = world_.get();
}
FakeVerbs::~FakeVerbs() {
  current = nullptr;
}

std::shared_ptr<const VerbsLibrary> FakeVerbs::library() const {
  VerbsRules rules = world_->options.thunderbolt ? VerbsRules::thunderbolt() : VerbsRules::fabric();
  return VerbsLibrary::from(symbol, "fake verbs", rules).value();
}

void FakeVerbs::freeze() {
  std::lock_guard lock(world_->mutex);
  world_->frozen = true;
}
void FakeVerbs::damage_next_send(size_t offset) {
  std::lock_guard lock(world_->mutex);
  world_->damage_offset = offset;
}
void FakeVerbs::drop_next_sends(uint32_t count) {
  std::lock_guard lock(world_->mutex);
  world_->drops_due = count;
}
void FakeVerbs::fail_next_send() {
  std::lock_guard lock(world_->mutex);
  world_->failure_due = true;
}
void FakeVerbs::refuse_next(std::string symbol) {
  std::lock_guard lock(world_->mutex);
  world_->refusal_due = std::move(symbol);
}
void FakeVerbs::set_down(size_t device) {
  std::lock_guard lock(world_->mutex);
  world_->devices.at(device).active = false;
}
void FakeVerbs::expect_rule_breaks() {
  std::lock_guard lock(world_->mutex);
  world_->breaks_expected = true;
}
std::vector<std::string> FakeVerbs::rule_breaks() const {
  std::lock_guard lock(world_->mutex);
  return world_->breaks;
}
uint64_t FakeVerbs::unmatched_sends() const {
  std::lock_guard lock(world_->mutex);
  return world_->unmatched;
}
uint64_t FakeVerbs::delivered_sends() const {
  std::lock_guard lock(world_->mutex);
  return world_->delivered;
}
uint32_t FakeVerbs::open_queue_pairs() const {
  std::lock_guard lock(world_->mutex);
  return static_cast<uint32_t>(world_->pairs.size());
}

VerbsUpgrades upgrade_both(const FakeVerbs& fake, std::unique_ptr<Link> first, std::unique_ptr<Link> second,
                           const LinkOptions& options) {
  TimePoint deadline = std::chrono::steady_clock::now() + seconds(30);
  auto library = fake.library();
  auto other = std::async(std::launch::async, [&] {
    return upgrade_to_verbs(std::move(second), library, "10.0.0.2", deadline, options);
  });
  auto own = upgrade_to_verbs(std::move(first), library, "10.0.0.1", deadline, options);
  return {std::move(own), other.get()};
}

}  // namespace shoal::link
