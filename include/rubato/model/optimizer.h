#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "rubato/core/option_values.h"
#include "rubato/model/learning_rate.h"
#include "rubato/tensor/tensor.h"

namespace rubato {

/// How momentum goes on where the learning rate changes; the same where it does not.
enum class MomentumForm {
  torch,     ///< b <- m b + g, w <- w - rate b: the new rate scales the old momentum as well, as torch.optim.SGD has it
  velocity,  ///< v <- m v - rate g, w <- w + v: what was gained at the old rate stays (Sutskever et al. 2013; the EASGD paper)
};
MomentumForm parse_momentum_form(const std::string& name);

/// What an optimizer is made from. Fields that it does not have are ignored by it; `check` says so where it would surprise.
struct OptimizerOptions {
  std::string name = "sgd";
  LearningRate learning_rate;
  double momentum = 0;                               ///< sgd, rmsprop; [0, 1)
  bool nesterov = false;                             ///< sgd; needs momentum > 0
  MomentumForm momentum_form = MomentumForm::torch;  ///< sgd
  double weight_decay = 0;                           ///< >= 0; adamw: decoupled, else added to the gradient
  double clip_norm = 0;                              ///< largest L2 norm of one block's gradient; 0: no clipping
  double clip_value = 0;                             ///< largest absolute value of a gradient's element; 0: no clipping
  OptionValues values = {};                          ///< of the entry's own options

  void check() const;
};

/// One row of `rubato list optimizers`: one of libtorch's own, or any other torch::optim::Optimizer.
struct OptimizerEntry {
  std::string name;
  std::string summary;  ///< one line
  /// Over `parameters` (leaves; not empty), with values for all of `options`. The store sets the learning rate before each step
  /// with `set_lr` of every group's options.
  std::function<std::unique_ptr<torch::optim::Optimizer>(const OptimizerOptions&, std::vector<torch::Tensor> parameters)> make;
  double learning_rate = 1e-3;  ///< where none is given
  double momentum = 0;          ///< where none is given
  double weight_decay = 0;      ///< where none is given
  bool has_momentum = false;    ///< reads `OptimizerOptions::momentum`
  bool is_sgd = false;          ///< libtorch's SGD: has Nesterov momentum and the velocity form
  /// Options of its own; for another optimizer they are refused.
  std::vector<OptionSpec> options = {};
  CompleteOptions complete = {};
  CheckOptions check = {};
};

/// Adds an optimizer to those that there are, before a run that is to know it. Returns true, so that a static object can be made
/// of the call. std::logic_error for a name that is taken; see `Registry`. From any thread.
bool register_optimizer(OptimizerEntry entry);
/// Those that come along, then those that were registered.
std::vector<OptimizerEntry> optimizers();
/// Valid to the end of the program. Throws UsageError with the nearest known name.
const OptimizerEntry& find_optimizer(const std::string& name);

/// An optimizer over `parameters` (leaves; not empty).
std::unique_ptr<torch::optim::Optimizer> make_optimizer(const OptimizerOptions& options, std::vector<torch::Tensor> parameters);

/// The momentum buffer that torch's SGD keeps for `parameter`; undefined before its first step and for other optimizers.
torch::Tensor momentum_buffer(torch::optim::Optimizer& optimizer, const torch::Tensor& parameter);

/// Before a step of SGD at `rate` whose last step was at `last_rate`: makes its momentum buffers those of the velocity form.
void keep_velocity(torch::optim::Optimizer& optimizer, const std::vector<torch::Tensor>& parameters, double last_rate,
                   double rate);

/// Scales `gradients` in place of the vector's entries as `clip_norm` and `clip_value` ask. Undefined entries are skipped.
void clip(const OptimizerOptions& options, std::vector<torch::Tensor>& gradients);

}  // namespace rubato
