#include "rubato/model/optimizer.h"

#include <fmt/format.h>

#include <string>
#include <vector>

#include "rubato/core/error.h"
#include "rubato/core/registry.h"
#include "rubato/model/torch_versions.h"

namespace rubato {
namespace {

using Parameters = std::vector<torch::Tensor>;
using Made = std::unique_ptr<torch::optim::Optimizer>;

std::vector<OptimizerEntry> of_libtorch() {
  namespace optim = torch::optim;
  return {{.name = "sgd",
           .summary = "stochastic gradient descent; --momentum, --nesterov, --weight-decay",
           .make = [](const OptimizerOptions& o, Parameters p) -> Made {
             return std::make_unique<optim::SGD>(
                 std::move(p),
                 optim::SGDOptions(o.learning_rate.base).momentum(o.momentum).nesterov(o.nesterov).weight_decay(o.weight_decay));
           },
           .learning_rate = 0.1,
           .momentum = 0.9,
           .weight_decay = 5e-4,
           .has_momentum = true,
           .is_sgd = true},
          {.name = "adam",
           .summary = "Adam (0.9, 0.999)",
           .make = [](const OptimizerOptions& o, Parameters p) -> Made {
             return std::make_unique<optim::Adam>(std::move(p),
                                                  optim::AdamOptions(o.learning_rate.base).weight_decay(o.weight_decay));
           }},
          {.name = "adamw",
           .summary = "Adam with decoupled weight decay",
           .make = [](const OptimizerOptions& o, Parameters p) -> Made {
             return std::make_unique<optim::AdamW>(std::move(p),
                                                   optim::AdamWOptions(o.learning_rate.base).weight_decay(o.weight_decay));
           },
           .weight_decay = 0.01},
          {.name = "rmsprop",
           .summary = "RMSprop; --momentum",
           .make = [](const OptimizerOptions& o, Parameters p) -> Made {
             return std::make_unique<optim::RMSprop>(
                 std::move(p), optim::RMSpropOptions(o.learning_rate.base).momentum(o.momentum).weight_decay(o.weight_decay));
           },
           .has_momentum = true},
          {.name = "adagrad",
           .summary = "Adagrad",
           .make = [](const OptimizerOptions& o, Parameters p) -> Made {
             return std::make_unique<optim::Adagrad>(std::move(p),
                                                     optim::AdagradOptions(o.learning_rate.base).weight_decay(o.weight_decay));
           },
           .learning_rate = 0.01}};
}

Registry<OptimizerEntry>& registry() {
  static Registry<OptimizerEntry> all("optimizer", of_libtorch());
  return all;
}

}  // namespace

MomentumForm parse_momentum_form(const std::string& name) {
  if (name == "torch") return MomentumForm::torch;
  if (name == "velocity") return MomentumForm::velocity;
  throw unknown_name("value of --momentum-form", name, {"torch", "velocity"});
}

bool register_optimizer(OptimizerEntry entry) {
  return registry().add(std::move(entry));
}

std::vector<OptimizerEntry> optimizers() {
  return registry().all();
}

const OptimizerEntry& find_optimizer(const std::string& name) {
  return registry().find(name);
}

void OptimizerOptions::check() const {
  const OptimizerEntry& entry = find_optimizer(name);
  checked_values(entry, values, {.learning_rate = learning_rate.base});
  learning_rate.check();
  if (!(momentum >= 0 && momentum < 1)) {
    throw UsageError("--momentum " + fmt::format("{}", momentum) + " must be in [0, 1)");
  }
  if (momentum > 0 && !entry.has_momentum) {
    throw UsageError("--momentum applies to sgd and rmsprop, not to " + name + ", which has its own: leave it out");
  }
  if (nesterov && (!entry.is_sgd || momentum == 0)) {
    throw UsageError("--nesterov needs --optimizer sgd and --momentum above 0");
  }
  if (!(weight_decay >= 0)) throw UsageError("--weight-decay " + fmt::format("{}", weight_decay) + " must not be negative");
  if (!(clip_norm >= 0) || !(clip_value >= 0)) throw UsageError("--clip-norm and --clip-value must not be negative");
}

std::unique_ptr<torch::optim::Optimizer> make_optimizer(const OptimizerOptions& options, Parameters parameters) {
  const OptimizerEntry& entry = find_optimizer(options.name);
  OptimizerOptions completed = options;
  completed.values = completed_values(entry, options.values, {.learning_rate = options.learning_rate.base});
  return entry.make(completed, std::move(parameters));
}

torch::Tensor momentum_buffer(torch::optim::Optimizer& optimizer, const torch::Tensor& parameter) {
  const auto found = optimizer.state().find(torch_versions::optimizer_key(parameter));
  if (found == optimizer.state().end()) return {};
  const auto* state = dynamic_cast<const torch::optim::SGDParamState*>(found->second.get());
  return state == nullptr ? torch::Tensor() : state->momentum_buffer();
}

void keep_velocity(torch::optim::Optimizer& optimizer, const Parameters& parameters, double last_rate, double rate) {
  if (last_rate == rate || last_rate <= 0 || rate <= 0) return;  // a rate of 0 moves nothing, whatever the buffer holds
  for (const torch::Tensor& parameter : parameters) {
    torch::Tensor momentum = momentum_buffer(optimizer, parameter);
    if (momentum.defined()) momentum.mul_(last_rate / rate);
  }
}

void clip(const OptimizerOptions& options, Parameters& gradients) {
  if (options.clip_value > 0) {
    for (torch::Tensor& gradient : gradients) {
      if (gradient.defined()) gradient = gradient.clamp(-options.clip_value, options.clip_value);
    }
  }
  if (options.clip_norm > 0) {
    double squares = 0;
    for (const torch::Tensor& gradient : gradients) {
      if (gradient.defined()) squares += gradient.to(torch::kDouble).square().sum().item<double>();
    }
    const double norm = std::sqrt(squares);
    if (norm <= options.clip_norm) return;
    for (torch::Tensor& gradient : gradients) {
      if (gradient.defined()) gradient = gradient * (options.clip_norm / norm);
    }
  }
}

}  // namespace rubato
