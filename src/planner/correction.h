// What steps were seen to take, held against what was predicted: a factor per device and per link that
// corrects the figures plans are made from. Pure; whoever observes calls, whoever plans asks. Not
// thread-safe.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "planner/planner.h"

namespace shoal::planner {

inline constexpr double kDrift = 0.2;              // of a factor that is worth saying
inline constexpr double kWorthMoving = 0.1;        // of the objective that another placement must gain
inline constexpr uint32_t kLeastObservations = 8;  // before a factor counts

// A figure that is not what it was taken for.
struct Drift {
  std::string node;   // the device, or where the link begins
  std::string peer;   // where the link ends; empty: a device
  double factor = 1;  // observed by predicted seconds: above 1 is slower
};

class Correction {
 public:
  // One observation each. `predicted` is what figures without any correction give (predict.h). What is not
  // positive and finite is ignored.
  void observe_rank(const std::string& node, double predicted_seconds, double observed_seconds);
  void observe_link(const std::string& from, const std::string& to, double predicted_seconds,
                    double observed_seconds);
  // Where only the stage's time is known, all its ranks are as slow as it is: nobody can tell which of them
  // the others waited for.
  void observe_stage(const StagePlan& stage, double predicted_seconds, double observed_seconds);

  double device_factor(const std::string& node) const;  // 1 until it counts
  double link_factor(const std::string& from, const std::string& to) const;

  // Devices and links beyond kDrift, the worst first.
  std::vector<Drift> drifts() const;

  // The figures that plans should be made from.
  void correct(std::vector<Device>& devices, std::vector<LinkFigures>& links) const;

  void forget(const std::string& node);  // it was measured anew, or is gone

 private:
  struct Factor {
    double logarithm = 0;  // of observed by predicted, smoothed
    uint32_t observations = 0;
    void observe(double predicted_seconds, double observed_seconds);
    double value() const;
  };

  std::map<std::string, Factor> devices_;
  std::map<std::pair<std::string, std::string>, Factor> links_;
};

// "alpha is 34 % slower than measured", "the link from alpha to beta is …". `devices` name the nodes.
std::string drift_words(const Drift& drift, const std::vector<Device>& devices);

struct BetterPlacement {
  Placement proposed;
  Placement running;  // as it is predicted now
  double gain = 0;    // of the objective: 0.25 is a quarter more tokens/s, or a fifth less time to the first
  std::string words;  // "a better placement exists: gain 25 %"
};

// nullopt when nothing gains kWorthMoving. `devices` offer what they would were the instance not there: its
// own memory counts as free. `running` needs nodes, layers and shares. Errors: those of plan() and predict().
Result<std::optional<BetterPlacement>> find_better(std::vector<Device> devices,
                                                   std::vector<LinkFigures> links, const ModelDemand& model,
                                                   const PlanOptions& options,
                                                   const std::vector<StagePlan>& running,
                                                   const Correction& correction);

}  // namespace shoal::planner
