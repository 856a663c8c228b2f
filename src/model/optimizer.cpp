#include "rubato/model/optimizer.h"

#include <algorithm>
#include <functional>

#include "rubato/core/error.h"
#include "rubato/model/torch_versions.h"

namespace rubato {
namespace {

using Parameters = std::vector<torch::Tensor>;
using Made = std::unique_ptr<torch::optim::Optimizer>;

struct Entry {
  std::string name;
  std::function<Made(const OptimizerOptions&, Parameters)> make;
};

const std::vector<Entry>& entries() {
  namespace optim = torch::optim;
  static const std::vector<Entry> table = {
      {"sgd",
       [](const OptimizerOptions& o, Parameters p) -> Made {
         return std::make_unique<optim::SGD>(
             std::move(p),
             optim::SGDOptions(o.learning_rate.base).momentum(o.momentum).nesterov(o.nesterov).weight_decay(o.weight_decay));
       }},
      {"adam",
       [](const OptimizerOptions& o, Parameters p) -> Made {
         return std::make_unique<optim::Adam>(std::move(p),
                                              optim::AdamOptions(o.learning_rate.base).weight_decay(o.weight_decay));
       }},
      {"adamw",
       [](const OptimizerOptions& o, Parameters p) -> Made {
         return std::make_unique<optim::AdamW>(std::move(p),
                                               optim::AdamWOptions(o.learning_rate.base).weight_decay(o.weight_decay));
       }},
      {"rmsprop",
       [](const OptimizerOptions& o, Parameters p) -> Made {
         return std::make_unique<optim::RMSprop>(
             std::move(p), optim::RMSpropOptions(o.learning_rate.base).momentum(o.momentum).weight_decay(o.weight_decay));
       }},
      {"adagrad",
       [](const OptimizerOptions& o, Parameters p) -> Made {
         return std::make_unique<optim::Adagrad>(std::move(p),
                                                 optim::AdagradOptions(o.learning_rate.base).weight_decay(o.weight_decay));
       }},
  };
  return table;
}

}  // namespace

MomentumForm parse_momentum_form(const std::string& name) {
  if (name == "torch") return MomentumForm::torch;
  if (name == "velocity") return MomentumForm::velocity;
  throw unknown_name("value of --momentum-form", name, {"torch", "velocity"});
}

std::vector<std::string> optimizer_names() {
  std::vector<std::string> names;
  for (const Entry& entry : entries()) names.push_back(entry.name);
  return names;
}

void OptimizerOptions::check() const {
  const auto names = optimizer_names();
  if (std::find(names.begin(), names.end(), name) == names.end()) throw unknown_name("optimizer", name, names);
  learning_rate.check();
  if (!(momentum >= 0 && momentum < 1)) {
    throw UsageError("--momentum " + std::to_string(momentum) + " must be in [0, 1)");
  }
  if (momentum > 0 && name != "sgd" && name != "rmsprop") {
    throw UsageError("--momentum applies to sgd and rmsprop, not to " + name + ", which has its own: leave it out");
  }
  if (nesterov && (name != "sgd" || momentum == 0)) {
    throw UsageError("--nesterov needs --optimizer sgd and --momentum above 0");
  }
  if (!(weight_decay >= 0)) throw UsageError("--weight-decay " + std::to_string(weight_decay) + " must not be negative");
  if (!(clip_norm >= 0) || !(clip_value >= 0)) throw UsageError("--clip-norm and --clip-value must not be negative");
}

std::unique_ptr<torch::optim::Optimizer> make_optimizer(const OptimizerOptions& options, Parameters parameters) {
  for (const Entry& entry : entries()) {
    if (entry.name == options.name) return entry.make(options, std::move(parameters));
  }
  throw unknown_name("optimizer", options.name, optimizer_names());
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
