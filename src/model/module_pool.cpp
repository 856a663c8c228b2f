#include "model/module_pool.h"

namespace rubato {

ModuleInstance::ModuleInstance(const Block& block, torch::Device device) : module(block.module.clone()) {
  module.ptr()->to(device);
  module.ptr()->train();
  parameters = module.ptr()->parameters();
  const auto prototypes = block.module.ptr()->parameters();  // cloning forgets which of them are frozen
  for (std::size_t i = 0; i < parameters.size(); ++i) parameters[i].set_requires_grad(prototypes[i].requires_grad());
  buffers = module.ptr()->buffers();
}

void ModuleInstance::bind_parameters(const Snapshot& weights) {
  for (std::size_t i = 0; i < parameters.size(); ++i) parameters[i].set_data(weights.parameters->tensors[i]);
}

void ModuleInstance::overwrite_parameters(const Snapshot& weights) {
  torch::NoGradGuard no_grad;
  for (std::size_t i = 0; i < parameters.size(); ++i) parameters[i].data().copy_(weights.parameters->tensors[i]);
}

void ModuleInstance::bind_buffers(const Snapshot& weights) {
  torch::NoGradGuard no_grad;
  for (std::size_t i = 0; i < buffers.size(); ++i) buffers[i].copy_(weights.buffers->tensors[i]);
}

ModulePool::Lease ModulePool::lend(const Snapshot& weights) {
  std::unique_ptr<ModuleInstance> instance;
  {
    const std::lock_guard lock(mutex_);
    if (!idle_.empty()) {
      instance = std::move(idle_.back());
      idle_.pop_back();
    } else {
      ++created_;
    }
  }
  if (!instance) instance = std::make_unique<ModuleInstance>(block_, device_);
  overwritable_ ? instance->overwrite_parameters(weights) : instance->bind_parameters(weights);
  instance->bind_buffers(weights);
  return {instance.release(), [home = weak_from_this()](ModuleInstance* returned) {
            std::unique_ptr<ModuleInstance> owned(returned);
            if (const auto pool = home.lock()) {
              const std::lock_guard lock(pool->mutex_);
              pool->idle_.push_back(std::move(owned));
            }
          }};
}

std::size_t ModulePool::created() const {
  const std::lock_guard lock(mutex_);
  return created_;
}

}  // namespace rubato
