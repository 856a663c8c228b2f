#include <optional>

#include "couplings/parts.h"

namespace rubato::coupling_detail {
namespace {

/// Replicas that never meet; the run is about the first.
class None final : public Coupling {
 public:
  explicit None(const CouplingParts& parts) : first_(*parts.stores.front()) {
    if (parts.store.averaging.name != "none") average_.emplace(parts);
  }
  ReplicaHooks& hooks(int) override { return no_hooks(); }
  WeightStore& evaluation_weights() override { return average_ ? average_->refreshed() : first_; }
  bool evaluation_needs_statistics() const override { return average_.has_value(); }

 private:
  WeightStore& first_;
  std::optional<MeanStore> average_;  // of the first replica alone
};

}  // namespace

Made make_none(const CouplingParts& parts, const CouplingOptions&) {
  return std::make_unique<None>(parts);
}

}  // namespace rubato::coupling_detail
