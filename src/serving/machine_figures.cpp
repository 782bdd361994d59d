#include "serving/machine_figures.h"

#include <cmath>
#include <fmt/format.h>

namespace shoal::serving {
namespace {

Result<double> rate(const JsonObject& object, std::string_view name) {
  SHOAL_TRY(const double value, require_number(object, name));
  if (!std::isfinite(value) || value <= 0)
    return fail(ErrorCode::malformed, fmt::format("'{}' is {}, not a rate", name, value));
  return value;
}

}  // namespace

JsonObject to_json(const MachineFigures& figures) {
  JsonArray rates;
  for (const cluster::WeightRate& one : figures.weight_rates) rates.push_back(cluster::to_json(one));
  return {{"decode_bytes_per_second", figures.decode_bytes_per_second},
          {"prefill_flops_per_second", figures.prefill_flops_per_second},
          {"weight_rates", std::move(rates)}};
}

Result<MachineFigures> machine_figures_from_json(const JsonObject& object) {
  MachineFigures figures;
  SHOAL_TRY(figures.decode_bytes_per_second, rate(object, "decode_bytes_per_second"));
  SHOAL_TRY(figures.prefill_flops_per_second, rate(object, "prefill_flops_per_second"));
  SHOAL_TRY(figures.weight_rates, cluster::weight_rates_from_json(object));
  return figures;
}

}  // namespace shoal::serving
