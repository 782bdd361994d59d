// Figures of the instances this node owns, in Prometheus' text format.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "serving/owner.h"

namespace shoal::serving {

void write_owner_metrics(std::string& out,
                         const std::map<std::string, std::unique_ptr<InstanceOwner>, std::less<>>& owners);

}  // namespace shoal::serving
