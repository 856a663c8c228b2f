#include "support/oracle.h"

#include <cstdint>

#include "rubato/model/model.h"

namespace rubato::test {

OracleModule::OracleModule(const Model& model, BlockRange range, const StoreOptions& store, std::uint64_t seed)
    : first_(range.first), seed_(seed) {
  for (int block = range.first; block < range.last; ++block) {
    blocks_.push_back(model.blocks[static_cast<std::size_t>(block)].module.clone());
    names_.push_back(model.blocks[static_cast<std::size_t>(block)].name);
  }
  if (!parameters().empty()) optimizer_ = make_optimizer(store.optimizer, parameters());
}

OracleModule::Trip OracleModule::forward(const torch::Tensor& input, std::int64_t batch, bool keep_statistics) {
  Trip trip{.batch = batch, .input = input.detach()};
  if (first_ > 0) trip.input.requires_grad_(true);
  trip.output = trip.input;
  for (std::size_t i = 0; i < blocks_.size(); ++i) {
    trip.blocks.push_back(blocks_[i].clone());
    const PassKeyScope random({seed_, static_cast<std::uint64_t>(batch), static_cast<std::uint64_t>(first_) + i});
    trip.output = trip.blocks[i].forward<torch::Tensor>(trip.output);
    if (!keep_statistics) continue;
    const torch::NoGradGuard no_grad;
    const auto after = trip.blocks[i].ptr()->buffers();
    auto mine = blocks_[i].ptr()->buffers();
    for (std::size_t b = 0; b < mine.size(); ++b) mine[b].copy_(after[b]);
  }
  return trip;
}

torch::Tensor OracleModule::step(const Trip& trip, const torch::Tensor& grad_output) {
  std::vector<torch::Tensor> inputs;
  for (const torch::nn::AnyModule& block : trip.blocks) {
    for (const torch::Tensor& parameter : block.ptr()->parameters()) inputs.push_back(parameter);
  }
  if (first_ > 0) inputs.push_back(trip.input);
  if (inputs.empty()) return {};
  auto gradients = torch::autograd::grad({trip.output}, inputs, {grad_output});
  torch::Tensor below;
  if (first_ > 0) {
    below = gradients.back();
    gradients.pop_back();
  }
  std::vector<torch::Tensor> mine = parameters();
  for (std::size_t i = 0; i < mine.size(); ++i) mine[i].mutable_grad() = gradients[i];
  if (optimizer_) optimizer_->step();
  return below;
}

void OracleModule::add_to(Digest& digest) const {
  for (std::size_t i = 0; i < blocks_.size(); ++i) {
    for (const auto& item : blocks_[i].ptr()->named_parameters()) digest.add(names_[i] + "." + item.key(), item.value());
    for (const auto& item : blocks_[i].ptr()->named_buffers()) digest.add(names_[i] + "." + item.key(), item.value());
  }
}

std::vector<torch::Tensor> OracleModule::parameters() const {
  std::vector<torch::Tensor> all;
  for (const torch::nn::AnyModule& block : blocks_) {
    for (const torch::Tensor& parameter : block.ptr()->parameters()) all.push_back(parameter);
  }
  return all;
}

std::vector<OracleModule> oracle_modules(const Lab& lab) {
  std::vector<OracleModule> modules;
  for (const BlockRange range : stage_ranges(lab.options.schedule.cuts, static_cast<int>(lab.model.blocks.size()))) {
    modules.emplace_back(lab.model, range, lab.options.store, lab.options.stage.seed);
  }
  return modules;
}

std::string digest_of(const std::vector<OracleModule>& modules) {
  Digest digest;
  for (const OracleModule& module : modules) module.add_to(digest);
  return digest.hex();
}

torch::Tensor gradient_of_loss(const Model& model, const torch::Tensor& output, const torch::Tensor& target) {
  const torch::Tensor leaf = output.detach().requires_grad_(true);
  return torch::autograd::grad({model.task.loss(leaf, target)}, {leaf})[0];
}

}  // namespace rubato::test
