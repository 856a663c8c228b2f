#include "rubato/observe/evaluate.h"

#include <cstdint>
#include <thread>

#include "rubato/core/threads.h"
#include "rubato/data/batch_source.h"
#include "rubato/model/autocast.h"
#include "rubato/model/model.h"

namespace rubato {
namespace {

/// All processors for evaluation, then what was set before.
class AllThreads {
 public:
  AllThreads() : before_(at::get_num_threads()) {
    const int all = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
    at::set_num_threads(1 + threads_to_be_had(all - 1));
  }
  ~AllThreads() { at::set_num_threads(before_); }

 private:
  int before_;
};

std::vector<torch::nn::AnyModule> evaluation_copies(const Model& model, const WeightStore& store, torch::Device device) {
  std::vector<torch::nn::AnyModule> copies;
  for (int i = 0; i < store.block_count(); ++i) {
    copies.push_back(model.blocks[i].module.clone());
    const auto module = copies.back().ptr();
    module->to(device);
    module->eval();
    const Snapshot weights = store.result(i);
    const auto parameters = module->parameters();
    const auto buffers = module->buffers();
    for (std::size_t k = 0; k < parameters.size(); ++k) parameters[k].copy_(weights.parameters->tensors[k]);
    for (std::size_t k = 0; k < buffers.size(); ++k) buffers[k].copy_(weights.buffers->tensors[k]);
  }
  return copies;
}

}  // namespace

Evaluation evaluate(const Model& model, const WeightStore& store, const Dataset& data, const StageOptions& options,
                    std::int64_t batch_size) {
  torch::NoGradGuard no_grad;
  const AllThreads threads;
  auto blocks = evaluation_copies(model, store, options.device);
  const BatchMaker batches(std::shared_ptr<const Dataset>(&data, [](const Dataset*) {}),
                           {.batch_size = batch_size, .shuffle = false});
  double loss = 0;
  std::int64_t correct = 0, predictions = 0;
  for (std::int64_t i = 0; i < batches.batches_per_epoch(); ++i) {
    const Batch batch = batches.make(i);
    torch::Tensor activation = batch.input.to(options.device);
    if (options.channels_last && activation.dim() == 4) {
      activation = activation.contiguous(torch::MemoryFormat::ChannelsLast);
    }
    {
      const AutocastScope autocast(options.bf16);
      for (auto& block : blocks) activation = block.forward<torch::Tensor>(activation);
    }
    const torch::Tensor target = batch.target.to(options.device);
    if (activation.scalar_type() != torch::kFloat64) activation = activation.to(torch::kFloat32);
    loss += model.task.loss(activation, target).item<double>() * static_cast<double>(batch.input.size(0));
    if (!model.task.count) continue;
    const Counted counted = model.task.count(activation, target);
    correct += counted.correct;
    predictions += counted.predictions;
  }
  Evaluation result{.loss = loss / static_cast<double>(data.size())};
  if (predictions > 0) result.accuracy = 100.0 * static_cast<double>(correct) / static_cast<double>(predictions);
  return result;
}

}  // namespace rubato
