#include "rubato/model/stage.h"
#include "rubato/model/model.h"

#include <cstdint>

#include "model/module_pool.h"
#include "rubato/core/error.h"
#include "rubato/model/autocast.h"
#include "rubato/model/dropout.h"
#include "rubato/model/memory_error.h"

namespace rubato {

const char* name_of(StaleWeights stale_weights) {
  switch (stale_weights) {
    case StaleWeights::stashed:
      return "stashed";
    case StaleWeights::live:
      return "live";
    case StaleWeights::replayed:
      return "replayed";
  }
  return "";
}

StaleWeights parse_stale_weights(const std::string& name) {
  if (name == "stashed") return StaleWeights::stashed;
  if (name == "live") return StaleWeights::live;
  if (name == "replayed") return StaleWeights::replayed;
  throw unknown_name("meaning of --stale-weights", name, {"stashed", "live", "replayed"});
}

Stage::Stage(const Model& model, int first, int last, const StageOptions& options)
    : first_(first), last_(last), options_(options), task_(model.task) {
  if (first < 0 || last < first || last > static_cast<int>(model.blocks.size())) {
    throw UsageError("a stage of blocks " + std::to_string(first) + " to " + std::to_string(last) + " of a model of " +
                     std::to_string(model.blocks.size()) +
                     ": choose 0 <= first <= last <= " + std::to_string(model.blocks.size()));
  }
  for (int i = first; i < last; ++i) {
    pools_.push_back(
        std::make_shared<ModulePool>(model.blocks.at(i), options.device, options.stale_weights == StaleWeights::live));
  }
}

Stage::~Stage() = default;

Pass Stage::to_be_replayed(const torch::Tensor& input, std::int64_t batch) const {
  Pass pass;
  pass.batch_ = batch;
  pass.input_ = input.to(options_.device);
  if (options_.channels_last && pass.input_.dim() == 4) {
    pass.input_ = pass.input_.contiguous(torch::MemoryFormat::ChannelsLast);
  }
  return pass;
}

Pass Stage::forward(std::vector<Snapshot> weights, const torch::Tensor& input, std::int64_t batch,
                    std::vector<std::vector<torch::Tensor>>* buffers_after) const {
  Pass pass = to_be_replayed(input, batch);
  pass.weights_ = std::move(weights);
  const bool replayed_later = options_.stale_weights == StaleWeights::replayed;
  torch::AutoGradMode record(!replayed_later);
  run(pass, buffers_after);
  if (replayed_later) {
    pass.blocks_.clear();
    pass.weights_.clear();
  }
  return pass;
}

void Stage::run(Pass& pass, std::vector<std::vector<torch::Tensor>>* buffers_after) const {
  if (options_.dry_run) return run_dry(pass, buffers_after);
  pass.blocks_.clear();
  torch::Tensor activation = pass.input_;
  for (int local = 0; local < size(); ++local) {
    activation = run_block(pass, local, activation);
    if (buffers_after == nullptr) continue;
    std::vector<torch::Tensor> buffers;
    for (const torch::Tensor& buffer : pass.blocks_.back().instance->buffers) buffers.push_back(buffer.detach());
    buffers_after->push_back(std::move(buffers));
  }
  pass.output_ = activation.detach();
}

torch::Tensor Stage::run_block(Pass& pass, int local, const torch::Tensor& input) const {
  Pass::BlockPass block;
  block.instance = pools_[local]->lend(pass.weights_.at(local));
  block.input = input.detach();
  const bool wants_input_gradient = first_ + local > 0;
  if (wants_input_gradient && block.input.is_floating_point()) block.input.requires_grad_(true);
  const PassKeyScope random({.seed = options_.seed,
                             .batch = static_cast<std::uint64_t>(pass.batch_),
                             .block = static_cast<std::uint64_t>(first_ + local)});
  const AutocastScope autocast(options_.bf16);
  try {
    block.output = block.instance->module.forward<torch::Tensor>(block.input);
  } catch (const c10::Error& error) {
    if (is_out_of_memory(error)) throw;
    const std::string text = error.what_without_backtrace();
    const bool alone = text.find("more than 1 value per channel") != std::string::npos;
    throw DataError("block " + std::to_string(first_ + local) + " of the model cannot compute with a batch of shape " +
                    c10::str(block.input.sizes()) + ": " +
                    (alone ? "batch norm needs more than one value per channel, so no batch of one sample"
                           : text.substr(0, text.find('\n'))));
  }
  pass.blocks_.push_back(std::move(block));
  return pass.blocks_.back().output;
}

LossResult Stage::loss(const Pass& pass, const torch::Tensor& target) const {
  if (options_.dry_run) return {.grad_output = torch::empty_like(pass.output_)};
  torch::AutoGradMode record(true);
  const torch::Tensor output = pass.output_.detach().requires_grad_(true);
  const torch::Tensor labels = target.to(options_.device);
  const bool wide = output.scalar_type() == torch::kFloat64;
  const torch::Tensor value = task_.loss(wide ? output : output.to(torch::kFloat32), labels);
  LossResult result;
  result.loss = value.item<double>();
  result.grad_output = torch::autograd::grad({value}, {output})[0];
  if (task_.count) {
    const Counted counted = task_.count(output.detach(), labels);
    result.correct = counted.correct;
    result.predictions = counted.predictions;
  }
  return result;
}

void Stage::rebind(Pass& pass, int local, const Snapshot& weights) const {
  pass.weights_.at(local).parameters = weights.parameters;
  if (options_.dry_run) return;
  pass.blocks_.at(local).instance->overwrite_parameters(weights);
}

void Stage::replay(Pass& pass, std::vector<Snapshot> weights) const {
  torch::AutoGradMode record(true);
  pass.weights_ = std::move(weights);
  run(pass, nullptr);
}

std::vector<torch::Tensor> Stage::backward(Pass& pass, int local, torch::Tensor& grad, Wanted wanted) const {
  if (options_.dry_run) return dry_backward(pass, local, grad, wanted);
  Pass::BlockPass block = std::move(pass.blocks_.at(local));
  pass.output_.reset();
  std::vector<torch::Tensor> inputs;
  std::vector<std::size_t> places;  // of the parameters among them; frozen ones are not
  const std::vector<torch::Tensor>& parameters = block.instance->parameters;
  for (std::size_t i = 0; i < parameters.size() && wanted != Wanted::input; ++i) {
    if (!parameters[i].requires_grad()) continue;
    inputs.push_back(parameters[i]);
    places.push_back(i);
  }
  const bool input_gradient = wanted != Wanted::parameters && block.input.requires_grad();
  if (input_gradient) inputs.push_back(block.input);
  std::vector<torch::Tensor> found(inputs.size());
  if (block.output.requires_grad() && grad.defined() && !inputs.empty()) {
    found = torch::autograd::grad({block.output}, inputs, {grad}, /*retain_graph=*/false, /*create_graph=*/false,
                                  /*allow_unused=*/true);
  }
  grad = input_gradient ? found.back() : torch::Tensor();
  std::vector<torch::Tensor> gradients(parameters.size());
  for (std::size_t i = 0; i < places.size(); ++i) gradients[places[i]] = std::move(found[i]);
  return gradients;
}

torch::Tensor Stage::dry_output(const Pass& pass, int block) const {
  std::vector<std::int64_t> shape = {pass.input_.size(0)};
  const auto& sample = options_.dry_run->at(static_cast<std::size_t>(block));
  shape.insert(shape.end(), sample.begin(), sample.end());
  return torch::empty(shape, torch::TensorOptions(torch::kMeta).dtype(torch::kFloat32));
}

void Stage::run_dry(Pass& pass, std::vector<std::vector<torch::Tensor>>* buffers_after) const {
  pass.output_ = dry_output(pass, last_ - 1);
  if (buffers_after == nullptr) return;
  for (const Snapshot& weights : pass.weights_) buffers_after->push_back(weights.buffers->tensors);
}

std::vector<torch::Tensor> Stage::dry_backward(const Pass& pass, int local, torch::Tensor& grad, Wanted wanted) const {
  const auto& weights = pass.weights_.at(static_cast<std::size_t>(local)).parameters->tensors;
  grad = torch::Tensor();
  if (wanted != Wanted::parameters && first_ + local > 0) {
    grad = local > 0 ? dry_output(pass, first_ + local - 1) : torch::empty_like(pass.input_);
  }
  return wanted == Wanted::input ? std::vector<torch::Tensor>(weights.size()) : weights;
}

ActivationShapes activation_shapes(const Model& model, const torch::Tensor& input) {
  const torch::NoGradGuard no_grad;
  ActivationShapes shapes;
  torch::Tensor activation = input;
  for (const Block& block : model.blocks) {
    torch::nn::AnyModule module = block.module.clone();
    module.ptr()->eval();
    activation = module.forward<torch::Tensor>(activation);
    shapes.push_back(activation.sizes().slice(1).vec());
  }
  return shapes;
}

}  // namespace rubato
