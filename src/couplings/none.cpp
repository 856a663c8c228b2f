#include <optional>

#include "couplings/entries.h"
#include "couplings/parts.h"
#include "rubato/core/error.h"

namespace rubato::coupling_detail {
namespace {

/// Replicas that never meet; the run is about the first.
class None final : public Coupling {
 public:
  explicit None(const CouplingParts& parts) : first_(*parts.stores.front()) {
    if (parts.store.averaging.kind != Averaging::none) average_.emplace(parts);
  }
  ReplicaHooks& hooks(int) override { return no_hooks(); }
  WeightStore& evaluation_weights() override { return average_ ? average_->refreshed() : first_; }
  bool evaluation_needs_statistics() const override { return average_.has_value(); }

 private:
  WeightStore& first_;
  std::optional<MeanStore> average_;  // of the first replica alone
};

}  // namespace

OptionSpec averaging_rate_option() {
  return {.name = "averaging-rate",
          .usual = 1e-3,
          .help = "--averaging moving, mvadownpour: weight of the newest weights, above 0",
          .low = 0,
          .high = 1};
}

CouplingEntry none() {
  OptionSpec rate = averaging_rate_option();
  rate.only_if = {"averaging", "moving"};
  return {.name = "none",
          .summary = "one replica",
          .make = [](const CouplingParts& parts, const CouplingOptions&) { return std::make_unique<None>(parts); },
          .topology = Topology::alone,
          .default_period = 0,
          .fixed_protocol = true,
          .options = {{.name = "averaging",
                       .usual = "none",
                       .help = "without a coupling: evaluate a mean of the weights of all steps: none, mean (ASGD) or moving "
                               "(MVASGD); with replicas: adownpour, mvadownpour"},
                      rate},
          .check =
              [rate](const OptionValues& values, const RunFacts&) {
                const Averaging averaging = parse_averaging(values.get<std::string>("averaging"));
                if (averaging == Averaging::moving && !(values.get<double>(rate.name) > 0)) {
                  throw UsageError("--averaging-rate 0 must be above 0 and at most 1");
                }
              }};
}

}  // namespace rubato::coupling_detail
