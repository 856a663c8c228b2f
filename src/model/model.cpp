#include "rubato/model/model.h"

#include <cstdint>
#include <set>
#include <unordered_map>
#include <utility>

#include "rubato/core/error.h"
#include "rubato/model/dropout.h"
#include "rubato/model/memory_error.h"

namespace rubato {
namespace {

namespace nn = torch::nn;

template <class... Kinds>
bool has_dropout(const nn::Module& module) {
  return ((module.as<Kinds>() != nullptr && module.as<Kinds>()->options.p() > 0) || ...);
}

template <class... Kinds>
bool has_inner_dropout(const nn::Module& module) {
  return ((module.as<Kinds>() != nullptr && module.as<Kinds>()->options.dropout() > 0) || ...);
}

template <class... Kinds>
bool has_random_pools(const nn::Module& module) {
  return ((module.as<Kinds>() != nullptr && !module.as<Kinds>()->_random_samples.defined()) || ...);
}

/// Whether a forward pass of `module` itself, not of its children, takes numbers from libtorch's global generator.
bool draws_globally(const nn::Module& module) {
  return has_dropout<nn::DropoutImpl, nn::Dropout2dImpl, nn::Dropout3dImpl, nn::AlphaDropoutImpl, nn::FeatureAlphaDropoutImpl>(
             module) ||
         has_inner_dropout<nn::RNNImpl, nn::LSTMImpl, nn::GRUImpl, nn::MultiheadAttentionImpl>(module) ||
         has_random_pools<nn::FractionalMaxPool2dImpl, nn::FractionalMaxPool3dImpl>(module) ||
         module.as<nn::RReLUImpl>() != nullptr;
}

void refuse_global_draws(const std::string& name, const nn::Module& module) {
  for (const auto& part : module.named_modules(name)) {
    if (!draws_globally(*part.value())) continue;
    throw UsageError("block '" + name + "' contains '" + part.key() + "', a " + part.value()->name() +
                     ", which draws from libtorch's global generator, so that no run could be repeated; use "
                     "rubato::Dropout there, or make a torch::nn::Dropout a child of the Sequential itself");
  }
}

nn::AnyModule copied(const Block& block) {
  try {
    return block.module.clone();
  } catch (const c10::Error& error) {
    if (is_out_of_memory(error)) throw;
    throw UsageError("block '" + block.name + "' cannot be copied, as every pass in flight must: derive it and all its " +
                     "parts from torch::nn::Cloneable and register them in reset() (" + error.what_without_backtrace() + ")");
  }
}

nn::AnyModule repeatable(const Block& block) {
  const std::shared_ptr<nn::Module> module = block.module.ptr();
  if (const auto* dropout = module->as<nn::DropoutImpl>()) {
    Dropout replacement(dropout->options.p());
    replacement->train(module->is_training());
    return nn::AnyModule(replacement);
  }
  refuse_global_draws(block.name, *module);
  return copied(block);
}

void check_names(const std::vector<Block>& blocks) {
  if (blocks.empty()) throw UsageError("a model of 0 blocks cannot be trained; give at least one module");
  std::set<std::string> seen;
  for (const Block& block : blocks) {
    const std::string position = std::to_string(seen.size());
    if (block.name.empty()) throw UsageError("block " + position + " has an empty name; name it, 'head' for example");
    if (block.module.is_empty()) throw UsageError("block '" + block.name + "' holds no module; give it one");
    if (!seen.insert(block.name).second) {
      throw UsageError("two blocks are named '" + block.name + "'; names of blocks must differ, rename one");
    }
  }
}

/// Copies of a shared tensor would silently train apart.
void check_nothing_shared(const std::vector<Block>& blocks) {
  std::unordered_map<const void*, std::string> owners;
  for (const Block& block : blocks) {
    for (const auto& parameter : block.module.ptr()->named_parameters()) {
      const auto [owner, is_new] = owners.emplace(parameter.value().unsafeGetTensorImpl(), block.name);
      if (is_new || owner->second == block.name) continue;
      throw UsageError("blocks '" + owner->second + "' and '" + block.name + "' share the parameter '" + parameter.key() +
                       "'; weights belong to one block: join the two or give each its own");
    }
  }
}

}  // namespace

Model model_from(torch::nn::Sequential sequential, Task task) {
  std::vector<Block> blocks;
  auto module = sequential->begin();
  for (const auto& child : sequential->named_children()) blocks.push_back({child.key(), *module++});
  return model_from(std::move(blocks), std::move(task));
}

Model model_from(torch::nn::Sequential sequential, LossFunction loss) {
  return model_from(std::move(sequential), Task{"a loss of its own", std::move(loss)});
}

Model model_from(std::vector<Block> blocks, LossFunction loss) {
  return model_from(std::move(blocks), Task{"a loss of its own", std::move(loss)});
}

Model model_from(std::vector<Block> blocks, Task task) {
  check_names(blocks);
  check_nothing_shared(blocks);
  for (Block& block : blocks) block.module = repeatable(block);
  return {"custom", std::move(blocks), std::move(task)};
}

}  // namespace rubato
