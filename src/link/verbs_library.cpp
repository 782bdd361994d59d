#include "link/verbs_library.h"

#include <dlfcn.h>
#include <fmt/format.h>

namespace shoal::link {
namespace {

constexpr const char* kHint = "tcp is used instead";

struct Known {
  const char* file;
  VerbsRules (*rules)();
};
constexpr Known kKnown[] = {{"libibverbs.so.1", VerbsRules::fabric},
                            {"librdma.dylib", VerbsRules::thunderbolt}};

}  // namespace

VerbsRules VerbsRules::fabric() {
  return {};
}

VerbsRules VerbsRules::thunderbolt() {
  VerbsRules rules;
  rules.reliable = false;
  rules.equal_frames = true;
  rules.access = verbs::kAccessLocalWrite | verbs::kAccessRemoteRead | verbs::kAccessRemoteWrite;
  rules.largest_mtu = verbs::Mtu::bytes_1024;
  rules.hop_limit = 1;
  rules.slot_bytes = 16 << 10;
  rules.depth_in_frames = true;
  return rules;
}

Result<std::shared_ptr<const VerbsLibrary>> VerbsLibrary::load() {
  std::string tried;
  for (const Known& known : kKnown) {
    auto library = load_file(known.file, known.rules());
    if (library) return library;
    tried += (tried.empty() ? "" : "; ") + library.error().message;
  }
  return fail(ErrorCode::unavailable, "no verbs library on this machine: " + tried, kHint);
}

Result<std::shared_ptr<const VerbsLibrary>> VerbsLibrary::load_file(const std::string& file,
                                                                    const VerbsRules& rules) {
  void* handle = ::dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    return fail(ErrorCode::unavailable, fmt::format("{} cannot be loaded", file), kHint);
  }
  return from([handle](const char* symbol) { return ::dlsym(handle, symbol); }, file, rules);
}

Result<std::shared_ptr<const VerbsLibrary>> VerbsLibrary::from(const Resolver& resolve,
                                                               const std::string& name,
                                                               const VerbsRules& rules) {
  auto library = std::make_shared<VerbsLibrary>();
  library->name = name;
  library->rules = rules;
  const char* missing = nullptr;
  auto bind = [&]<class Function>(Function*& function, const char* symbol) {
    function = reinterpret_cast<Function*>(resolve(symbol));
    if (function == nullptr && missing == nullptr) missing = symbol;
  };
  bind(library->get_device_list, "ibv_get_device_list");
  bind(library->free_device_list, "ibv_free_device_list");
  bind(library->get_device_name, "ibv_get_device_name");
  bind(library->open_device, "ibv_open_device");
  bind(library->close_device, "ibv_close_device");
  bind(library->alloc_pd, "ibv_alloc_pd");
  bind(library->dealloc_pd, "ibv_dealloc_pd");
  bind(library->create_cq, "ibv_create_cq");
  bind(library->destroy_cq, "ibv_destroy_cq");
  bind(library->create_qp, "ibv_create_qp");
  bind(library->destroy_qp, "ibv_destroy_qp");
  bind(library->query_port, "ibv_query_port");
  bind(library->query_gid, "ibv_query_gid");
  bind(library->modify_qp, "ibv_modify_qp");
  bind(library->reg_mr, "ibv_reg_mr");
  bind(library->dereg_mr, "ibv_dereg_mr");
  if (missing != nullptr) {
    return fail(ErrorCode::unavailable, fmt::format("{} has no {}", name, missing), kHint);
  }
  return library;
}

}  // namespace shoal::link
