//   your Sequential ──> blocks ──> WeightStore <── worker-0, worker-1   (hogwild)
//
// Any torch::nn::Sequential, any data in memory, no files.
#include <torch/torch.h>

#include <cstdio>

#include "rubato/extend.h"

namespace {

/// 1,000 points in the plane as 1 x 1 x 2 "images"; the label says whether the first coordinate is the larger one.
std::shared_ptr<rubato::Dataset> points() {
  auto data = std::make_shared<rubato::Dataset>();
  data->classes = 2;
  data->mean = {0.5};
  data->deviation = {0.3};
  const torch::Tensor step = torch::arange(1000, torch::kInt64);
  const torch::Tensor x = (step * 37) % 251, y = (step * 91) % 241;
  data->inputs = torch::stack({x, y}, 1).to(torch::kUInt8).view({1000, 1, 1, 2});
  data->targets = x.gt(y).to(torch::kInt64);
  return data;
}

class LastLoss final : public rubato::StepObserver {
 public:
  void step(const rubato::StepReport& report) override { loss = report.loss; }
  std::atomic<double> loss{0};
};

}  // namespace

int main() {
  rubato::prepare_process();
  const rubato::Model model = rubato::model_from(
      torch::nn::Sequential(torch::nn::Flatten(), torch::nn::Linear(2, 16), torch::nn::ReLU(), torch::nn::Linear(16, 2)));
  rubato::WeightStore store(model, {.optimizer = {.learning_rate = {.base = 0.1}, .momentum = 0.9}});
  auto batches = std::make_shared<const rubato::BatchMaker>(points(), rubato::BatchOptions{.batch_size = 20});
  rubato::BatchSource source(batches);
  LastLoss last;
  rubato::Replica replica{model, store, source, last, {}, {}};

  // Another schedule is another line here; roles, store and runtime stay.
  const auto schedule = rubato::make_schedule(replica, {.name = "hogwild", .values = {{"workers", 2}}});
  const auto runtime = rubato::make_thread_runtime({.on_thread_start = [] { rubato::prepare_thread(1); }});
  source.open(0, 20 * batches->batches_per_epoch());
  runtime->run(schedule->roles());
  std::printf("loss %.4f, staleness of the first linear layer %.2f\n", last.loss.load(), store.staleness(1).mean());
}
