#pragma once

#include <ATen/CPUGeneratorImpl.h>

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "rubato/core/error.h"
#include "rubato/runtimes/options.h"
#include "rubato/schedules/schedule.h"
#include "rubato/zoo/zoo.h"

namespace rubato::test {

inline torch::Generator generator(std::uint64_t seed) {
  return at::make_generator<at::CPUGeneratorImpl>(seed);
}

/// Random 8-bit images with labels that a small network can learn: the label is the brightest quarter of the image.
inline std::shared_ptr<const Dataset> small_images(std::int64_t samples = 64, std::int64_t size = 8) {
  auto data = std::make_shared<Dataset>();
  data->name = "quarters";
  data->classes = 4;
  data->inputs = torch::randint(0, 200, {samples, 1, size, size}, generator(7), torch::kInt64).to(torch::kUInt8);
  data->targets = torch::randint(0, 4, {samples}, generator(8), torch::kInt64);
  const std::int64_t half = size / 2;
  for (std::int64_t i = 0; i < samples; ++i) {
    const std::int64_t label = data->targets[i].item<std::int64_t>();
    data->inputs[i].narrow(1, label / 2 * half, half).narrow(2, label % 2 * half, half).add_(55);
  }
  data->mean = {0.5};
  data->deviation = {0.25};
  return data;
}

inline Model small_model(const std::string& name, std::uint64_t seed = 1, double dropout = -1) {
  const std::int64_t width = name.starts_with("resnet") ? 4 : 16;
  return make_model(
      {.model = name, .classes = 4, .channels = 1, .image_size = 8, .width = width, .dropout = dropout, .seed = seed});
}

/// Linear, batch norm, ReLU, dropout: everything that makes replay and staleness hard, in four blocks.
Model norm_and_dropout_model();

/// Keeps the reports it is given.
class Reports final : public StepObserver {
 public:
  void step(const StepReport& report) override {
    const std::lock_guard lock(mutex_);
    losses_.push_back(report.loss);
  }
  std::vector<double> losses() const {
    const std::lock_guard lock(mutex_);
    return losses_;
  }

 private:
  mutable std::mutex mutex_;
  std::vector<double> losses_;
};

/// One replica with all that it needs; trains on any runtime for any number of batches.
struct Lab {
  struct Options {
    ScheduleOptions schedule;
    StoreOptions store;
    StageOptions stage;
    std::int64_t batch_size = 8;
    std::vector<BlockCost> costs;
  };

  Lab(Model model_, Options options_, std::shared_ptr<const Dataset> data = small_images())
      : model(std::move(model_)),
        options(std::move(options_)),
        store(model, options.store),
        batches(std::make_shared<const BatchMaker>(std::move(data), BatchOptions{.batch_size = options.batch_size})),
        source(batches, 2),
        replica{model, store, source, reports, options.stage, options.costs},
        schedule(make_schedule(replica, options.schedule)) {}

  /// Batches [begin, end) of the run.
  Lab& run(Runtime& runtime, std::int64_t begin, std::int64_t end) {
    source.open(begin, end);
    runtime.run(schedule->roles());
    return *this;
  }
  Lab& run_on_threads(std::int64_t end, const RuntimeOptions& runtime = {}) { return run(*make_thread_runtime(runtime), 0, end); }

  Model model;
  Options options;
  WeightStore store;
  std::shared_ptr<const BatchMaker> batches;
  BatchSource source;
  Reports reports;
  Replica replica;
  std::unique_ptr<Schedule> schedule;
};

/// SGD as in most tests: momentum and weight decay on, so that a forgotten state shows.
inline StoreOptions sgd(double rate = 0.05, double momentum = 0.9, double decay = 1e-3) {
  return {.optimizer = {.name = "sgd", .learning_rate = {.base = rate}, .momentum = momentum, .weight_decay = decay}};
}
inline StoreOptions adam(double rate = 0.01) {
  return {.optimizer = {.name = "adam", .learning_rate = {.base = rate}}};
}

/// Whether this build can simulate.
bool has_simulator();

}  // namespace rubato::test
