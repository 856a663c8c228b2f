#include "model/buffer_decays.h"

#include <torch/nn/modules/batchnorm.h>
#include <torch/nn/modules/instancenorm.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <string>

namespace rubato {
namespace {

namespace nn = torch::nn;

/// Of a module that keeps running means; nothing: it keeps none, or cumulative ones.
template <class... Norms>
std::optional<double> momentum_of(const nn::Module& module) {
  std::optional<double> momentum;
  const auto look = [&](const auto* norm) {
    if (norm == nullptr) return;
    if constexpr (requires { norm->options.momentum().has_value(); }) {
      if (norm->options.momentum().has_value()) momentum = *norm->options.momentum();
    } else {
      momentum = norm->options.momentum();
    }
  };
  (look(dynamic_cast<const Norms*>(&module)), ...);
  return momentum;
}

}  // namespace

std::vector<double> buffer_decays(const nn::Module& module) {
  std::map<std::string, double> known;  // by name of the buffer
  const auto modules = module.named_modules();
  for (const auto& item : modules) {
    const auto momentum = momentum_of<nn::BatchNorm1dImpl, nn::BatchNorm2dImpl, nn::BatchNorm3dImpl, nn::InstanceNorm1dImpl,
                                      nn::InstanceNorm2dImpl, nn::InstanceNorm3dImpl>(*item.value());
    if (!momentum) continue;
    const std::string prefix = item.key().empty() ? "" : item.key() + ".";
    for (const char* name : {"running_mean", "running_var"}) known[prefix + name] = 1 - *momentum;
  }
  std::vector<double> decays;
  for (const std::string& name : module.named_buffers().keys()) {
    const auto found = known.find(name);
    decays.push_back(found == known.end() ? std::numeric_limits<double>::quiet_NaN() : found->second);
  }
  return decays;
}

torch::Tensor merged(const torch::Tensor& now, const torch::Tensor& read, const torch::Tensor& after, double decay,
                     std::int64_t missed) {
  if (!after.is_floating_point()) return now + (after - read);
  if (std::isfinite(decay)) return after + (now - read) * decay;
  return now + (after - read) / static_cast<double>(1 + missed);
}

}  // namespace rubato
