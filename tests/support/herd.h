#pragma once

#include <cstdint>

#include "rubato/core/random.h"
#include "rubato/job/job.h"
#include "rubato/model/dropout.h"
#include "rubato/model/model.h"
#include "support/lab.h"

namespace rubato::test {

/// Several replicas and their coupling; trains on any runtime for any number of steps.
struct Herd {
  struct Options {
    ScheduleOptions schedule;
    CouplingOptions coupling;
    StoreOptions store;
    StageOptions stage;
    std::int64_t batch_size = 8;
    bool shard = false;
    bool dry_run = false;  ///< nothing is computed; `stage` and `store` say so too
    std::vector<BlockCost> costs;
  };

  Herd(Model model_, const Options& options, std::shared_ptr<const Dataset> data = small_images())
      : model(std::move(model_)), job(model, parts(options, std::move(data)), reports) {}

  static JobParts parts(const Options& options, std::shared_ptr<const Dataset> data) {
    JobParts parts{.schedule = options.schedule,
                   .coupling = options.coupling,
                   .store = options.store,
                   .stage = options.stage,
                   .costs = options.costs,
                   .prefetch = 0};
    for (int i = 0; i < options.coupling.replicas; ++i) {
      const BatchOptions batches{.batch_size = options.batch_size,
                                 .seed = options.shard ? 1u : 1u + static_cast<unsigned>(i),
                                 .dry_run = options.dry_run};
      parts.batches.push_back(std::make_shared<const BatchMaker>(data, batches));
      if (options.shard) parts.shards.push_back({i, options.coupling.replicas});
    }
    return parts;
  }

  Herd& run(Runtime& runtime, std::int64_t begin, std::int64_t end) {
    job.open(begin, end);
    runtime.run(job.roles(), job.units());
    return *this;
  }
  Herd& run_on_threads(std::int64_t end, const RuntimeOptions& runtime = {}) {
    return run(*make_thread_runtime(runtime), 0, end);
  }

  /// Strict round-robin in virtual time: with costs that add up to p seconds per step, replica i acts at i, i + p, i + 2 p, ...
  Herd& run_round_robin(std::int64_t end) {
    job.open(0, end);
    std::vector<Role> roles = job.roles();
    for (int i = 0; i < job.replicas(); ++i) {
      Role& role = roles[static_cast<std::size_t>(i)];
      role.run = [i, run = std::move(role.run)](Context& me) {
        me.sleep(i);
        run(me);
      };
    }
    make_simulator(ideal_platform(job.replicas() + 1), {})->run(roles);
    return *this;
  }
  /// Hosts joined by links that take no time.
  static SimulatedPlatform ideal_platform(int hosts) {
    return {.hosts = hosts, .link_bytes_per_second = 1e15, .link_latency_seconds = 0};
  }

  /// The first parameter of the model, as a copy.
  torch::Tensor weight(int replica) const { return first_of(job.store(replica)); }
  torch::Tensor centre() { return first_of(job.coupling().evaluation_weights()); }
  static torch::Tensor first_of(const WeightStore& store) {
    int block = 0;
    while (store.parameter_names(block).empty()) ++block;
    return store.result(block).parameters->tensors.front().clone();
  }

  Model model;
  Reports reports;
  Job job;
};

/// loss = h |w|^2 / 2 + xi w, with xi normal with deviation sigma, drawn anew for every pass and element: the noisy quadratic on
/// which the papers' closed forms hold. w is double and starts at `start`.
struct NoisyQuadraticImpl : torch::nn::Cloneable<NoisyQuadraticImpl> {
  NoisyQuadraticImpl(double h, double sigma, std::int64_t size, double start) : h_(h), sigma_(sigma), size_(size), start_(start) {
    reset();
  }
  void reset() override { w_ = register_parameter("w", torch::full({size_}, start_, torch::kFloat64)); }
  torch::Tensor forward(const torch::Tensor&) {
    torch::Tensor loss = 0.5 * h_ * w_.square().sum();
    if (sigma_ > 0) loss = loss + (torch::randn({size_}, next_pass_generator(), torch::kFloat64) * sigma_ * w_).sum();
    return loss;
  }

 private:
  double h_, sigma_;
  std::int64_t size_;
  double start_;
  torch::Tensor w_;
};
TORCH_MODULE(NoisyQuadratic);

inline Model noisy_quadratic(double h, double sigma = 0, std::int64_t size = 1, double start = 1) {
  std::vector<Block> blocks;
  blocks.push_back({"q", torch::nn::AnyModule(NoisyQuadratic(h, sigma, size, start))});
  return model_from(std::move(blocks), [](const torch::Tensor& out, const torch::Tensor&) { return out; });
}

/// loss = g w, with g whole numbers that depend on (seed, batch) alone: with rates that are powers of two every sum is exact.
struct WholeDriftImpl : torch::nn::Cloneable<WholeDriftImpl> {
  WholeDriftImpl() { reset(); }
  void reset() override { w_ = register_parameter("w", torch::zeros({size}, torch::kFloat64)); }
  torch::Tensor forward(const torch::Tensor&) { return (gradient(next_pass_generator()) * w_).sum(); }

  static constexpr std::int64_t size = 4;
  static torch::Tensor gradient(const torch::Generator& generator) {
    return torch::randint(-8, 9, {size}, generator, torch::kInt64).to(torch::kFloat64);
  }
  /// What `replica` meets in its batch `batch`, with the default seed of a stage.
  static torch::Tensor gradient_of(int replica, std::int64_t batch) {
    const PassKeyScope key(
        {.seed = replica_seed(StageOptions{}.seed, replica), .batch = static_cast<std::uint64_t>(batch), .block = 0});
    return gradient(next_pass_generator());
  }

 private:
  torch::Tensor w_;
};
TORCH_MODULE(WholeDrift);

inline Model whole_drift() {
  std::vector<Block> blocks;
  blocks.push_back({"drift", torch::nn::AnyModule(WholeDrift())});
  return model_from(std::move(blocks), [](const torch::Tensor& out, const torch::Tensor&) { return out; });
}

/// Sum of all gradients that `replicas` meet in `steps` steps.
inline torch::Tensor sum_of_drifts(int replicas, std::int64_t steps) {
  torch::Tensor sum = torch::zeros({WholeDriftImpl::size}, torch::kFloat64);
  for (int r = 0; r < replicas; ++r) {
    for (std::int64_t t = 0; t < steps; ++t) sum += WholeDriftImpl::gradient_of(r, t);
  }
  return sum;
}

}  // namespace rubato::test
