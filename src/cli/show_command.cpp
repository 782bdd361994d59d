#include "cli/show_command.h"

#include <fmt/format.h>

#include "base/log.h"
#include "cli/error_line.h"
#include "cli/model_summary.h"
#include "hub/model_store.h"

namespace shoal::cli {
namespace {

Result<formats::Checkpoint> open_model(const ShowOptions& options) {
  std::error_code error;
  if (options.model.contains('/') || std::filesystem::exists(options.model, error))
    return formats::Checkpoint::open(options.model);
  const hub::ModelStore store(hub::ModelStore::default_roots(options.data_directory));
  SHOAL_TRY(const hub::StoredModel stored, store.resolve(options.model));
  return formats::Checkpoint::open(stored.path);
}

Result<> show(const ShowOptions& options) {
  SHOAL_TRY(const formats::Checkpoint checkpoint, open_model(options));
  SHOAL_TRY(const JsonObject summary, model_summary(options.model, checkpoint));
  fmt::print("{}", options.json ? to_pretty_text(summary) + "\n" : summary_text(summary));
  return {};
}

}  // namespace

int run_show(const ShowOptions& options) {
  set_log_level(LogLevel::error);  // the store's warnings would repeat the error
  const Result<> shown = show(options);
  return shown ? 0 : report_failure(shown.error());
}

}  // namespace shoal::cli
