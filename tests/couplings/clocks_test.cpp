// Whose clock a rate follows, how stale what comes to a centre is, what a mean is a mean of.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <set>

#include "rubato/core/random.h"
#include "rubato/job/job.h"
#include "rubato/model/model.h"
#include "support/fast_simulator.h"
#include "support/lab.h"

namespace rubato {
namespace couplings_clocks_test {

constexpr int steps = 12;

struct Herd {
  Herd(Model model_, JobParts parts, const std::shared_ptr<const BatchMaker>& maker) : model(std::move(model_)) {
    parts.batches.assign(static_cast<std::size_t>(parts.coupling.replicas), maker);
    if (parts.shards.empty()) {
      for (int i = 0; i < parts.coupling.replicas; ++i) parts.shards.push_back({i, parts.coupling.replicas});
    }
    if (parts.costs.empty()) parts.costs.assign(model.blocks.size(), BlockCost{1, 2, 0});
    job = std::make_unique<Job>(model, std::move(parts), reports);
  }
  /// In virtual time, so that replicas are at work at once.
  Herd& go(std::int64_t begin, std::int64_t end) {
    if (!runtime) runtime = make_simulator({.hosts = job->replicas() * 3 + 1}, {.one_thread = test::one_thread});
    job->open(begin, end);
    runtime->run(job->roles(), job->units());
    return *this;
  }
  Model model;
  test::Reports reports;
  std::unique_ptr<Job> job;
  std::unique_ptr<Runtime> runtime;
};

std::shared_ptr<const BatchMaker> batches_of(std::int64_t size, std::int64_t samples = 64) {
  return std::make_shared<const BatchMaker>(test::small_images(samples), BatchOptions{.batch_size = size});
}

StoreOptions nesterov(double rate, LearningRate schedule = {}) {
  StoreOptions store = test::sgd(rate, 0.5, 0);
  store.optimizer.nesterov = true;
  schedule.base = rate;
  store.optimizer.learning_rate = schedule;
  return store;
}

class Clocks : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!test::has_simulator()) GTEST_SKIP() << "built without SimGrid";
  }
};

/// The schedule is that of a replica's steps; the centre takes four for each of them.
TEST_F(Clocks, a_momentum_centre_learns_to_the_end_of_a_cosine) {
  Herd run(test::small_model("mlp"),
           {.coupling = {.name = "mdownpour", .replicas = 4}, .store = nesterov(0.01, {.schedule = "cosine", .total = steps})},
           batches_of(8));
  run.go(0, steps / 2);
  const std::string half = run.job->coupling().evaluation_weights().digest();
  run.go(steps / 2, steps - 2);
  const std::string late = run.job->coupling().evaluation_weights().digest();
  run.go(steps - 2, steps);
  EXPECT_NE(half, late);
  EXPECT_NE(late, run.job->coupling().evaluation_weights().digest()) << "the rate is above 0 before the last step";
}

TEST_F(Clocks, staleness_at_a_centre_counts_what_others_did_meanwhile) {
  for (const char* coupling : {"mdownpour", "downpour", "async-easgd", "eamsgd", "easgd"}) {
    Herd run(test::small_model("mlp"),
             {.coupling = {.name = coupling, .replicas = 3, .period = 1, .values = {{"moving-rate", 0.2}}},
              .store = find_coupling(coupling).look_ahead ? nesterov(0.01) : test::sgd(0.01, 0, 0)},
             batches_of(8));
    run.go(0, steps);
    const auto staleness = run.job->centre_staleness(0);
    ASSERT_TRUE(staleness) << coupling;
    EXPECT_EQ(staleness->updates, 3 * steps) << coupling;
    if (find_coupling(coupling).fixed_protocol) {
      EXPECT_EQ(staleness->max, 0) << coupling << ": all meet it at once";
    } else {
      EXPECT_GT(staleness->mean(), 1) << coupling << ": two others at the same speed";
      EXPECT_LE(staleness->max, 2 * 3) << coupling;
    }
  }
  Herd alone(test::small_model("mlp"), {.coupling = {.name = "allreduce", .replicas = 2}, .store = test::sgd()}, batches_of(8));
  EXPECT_FALSE(alone.job->centre_staleness(0)) << "there is no centre";
}

/// Activations are those of the forward pass, whatever weights the backward pass uses.
TEST_F(Clocks, live_weights_have_the_staleness_of_their_activations) {
  for (const char* schedule : {"ddg", "fdg"}) {
    std::vector<StalenessCount> counts;
    std::vector<std::string> digests;
    for (const auto& [meaning, scaled] :
         {std::pair{StaleWeights::stashed, false}, {StaleWeights::live, false}, {StaleWeights::live, true}}) {
      StoreOptions store = test::sgd();
      store.scale_by_staleness = scaled;
      test::Lab lab(test::small_model("mlp"),
                    {.schedule = {.name = schedule, .cuts = {1, 2}}, .store = store, .stage = {.stale_weights = meaning}});
      lab.run_on_threads(steps);
      counts.push_back(lab.store.staleness(0));
      digests.push_back(lab.store.digest());
    }
    EXPECT_GT(counts[0].mean(), 0);
    EXPECT_EQ(counts[1].sum, counts[0].sum) << schedule;
    EXPECT_NE(digests[2], digests[1]) << schedule << ": scaling by staleness changes something";
  }
}

/// Of 18 samples in batches of 4 the fifth has 2: the step that takes it with a full one weighs every sample alike.
TEST_F(Clocks, allreduce_with_a_short_batch_is_the_mean_over_samples) {
  const auto maker = batches_of(4, 18);
  constexpr double rate = 0.1;
  Herd run(test::small_model("mlp"), {.coupling = {.name = "allreduce", .replicas = 2}, .store = test::sgd(rate, 0, 0)}, maker);
  run.go(0, 3);
  Model model = test::small_model("mlp");
  std::vector<torch::nn::AnyModule> blocks;
  std::vector<torch::Tensor> parameters;
  for (const Block& block : model.blocks) {
    blocks.push_back(block.module.clone());
    for (const torch::Tensor& parameter : blocks.back().ptr()->parameters()) parameters.push_back(parameter);
  }
  for (int step = 0; step < 3; ++step) {
    const Batch a = maker->make(2 * step), b = maker->make(2 * step + 1);
    torch::Tensor activation = torch::cat({a.input, b.input});
    for (auto& block : blocks) activation = block.forward<torch::Tensor>(activation);
    const auto gradients = torch::autograd::grad({model.task.loss(activation, torch::cat({a.target, b.target}))}, parameters);
    torch::NoGradGuard no_grad;
    for (std::size_t i = 0; i < parameters.size(); ++i) parameters[i].sub_(gradients[i], rate);
  }
  EXPECT_EQ(maker->make(4).input.size(0), 2);
  Bystander me;
  std::size_t at = 0;
  for (int block = 0; block < run.job->store(0).block_count(); ++block) {
    for (const torch::Tensor& tensor : run.job->store(0).read(me, block).parameters->tensors) {
      EXPECT_TRUE(torch::allclose(tensor, parameters[at], 1e-5, 1e-6)) << at;
      ++at;
    }
  }
}

TEST_F(Clocks, a_mean_of_replicas_with_nesterov_momentum_is_of_their_iterates) {
  for (const char* coupling : {"local-sgd", "lap"}) {
    Herd run(test::small_model("mlp"), {.coupling = {.name = coupling, .replicas = 2, .period = 5}, .store = nesterov(0.05)},
             batches_of(8));
    run.go(0, steps);
    Bystander me;
    WeightStore& weights = run.job->coupling().evaluation_weights();
    for (int block = 0; block < weights.block_count(); ++block) {
      const auto first = run.job->store(0).iterate(me, block), second = run.job->store(1).iterate(me, block);
      const auto published = run.job->store(0).read(me, block).parameters;
      for (std::size_t i = 0; i < first->tensors.size(); ++i) {
        EXPECT_FALSE(torch::equal(first->tensors[i], published->tensors[i]));
        EXPECT_TRUE(torch::allclose(weights.read(me, block).parameters->tensors[i], (first->tensors[i] + second->tensors[i]) / 2,
                                    1e-6, 1e-7))
            << coupling;
      }
    }
  }
}

/// The recurrence of `WeightStore`, over what was published: z(t+1) = (1 - a) z(t) + a w(t), a = 1 / (t + 1) for the plain mean.
TEST_F(Clocks, what_one_replica_is_tested_with_is_the_average_that_it_keeps) {
  for (const Averaging kind : {Averaging::mean, Averaging::moving}) {
    for (const bool look_ahead : {false, true}) {
      SCOPED_TRACE(look_ahead);
      StoreOptions store = look_ahead ? nesterov(0.1) : test::sgd(0.1, 0.5, 0);
      store.averaging = {.kind = kind, .rate = 0.25};
      Herd run(test::small_model("mlp"), {.coupling = {.name = "none", .replicas = 1}, .store = store}, batches_of(8));
      Bystander me;
      torch::NoGradGuard no_grad;
      torch::Tensor z;
      for (int t = 0; t < 5; ++t) {
        const torch::Tensor w = run.job->store(0).read(me, 0).parameters->tensors[0].clone();
        if (t == 0) z = w.clone();
        z.lerp_(w, kind == Averaging::mean ? 1.0 / (t + 1) : 0.25);
        run.go(t, t + 1);
        const torch::Tensor tested = run.job->coupling().evaluation_weights().result(0).parameters->tensors[0];
        EXPECT_TRUE(torch::allclose(tested, z, 1e-5, 1e-7)) << "after step " << t + 1;
        if (t > 0) EXPECT_FALSE(torch::allclose(tested, run.job->store(0).read(me, 0).parameters->tensors[0], 1e-4, 1e-6));
      }
    }
  }
}

TEST_F(Clocks, admm_clips_and_decays) {
  std::vector<std::string> digests;
  for (const auto& [clip, decay] : {std::pair{0.0, 0.0}, {1e-4, 0.0}, {0.0, 0.1}}) {
    StoreOptions store = test::sgd(0.05, 0, decay);
    store.optimizer.clip_value = clip;
    Herd run(test::small_model("mlp"), {.coupling = {.name = "admm", .replicas = 2}, .store = store}, batches_of(8));
    run.go(0, 4);
    digests.push_back(run.job->digest());
  }
  EXPECT_NE(digests[0], digests[1]);
  EXPECT_NE(digests[0], digests[2]);
}

/// v <- m v - rate g, x <- x + v; what is published is x + m v.
TEST(MomentumForm, velocity_is_what_the_paper_has_under_any_rate) {
  const double m = 0.9;
  for (const bool look_ahead : {true, false}) {
    StoreOptions options = test::sgd(1, m, 0);
    options.optimizer.nesterov = look_ahead;
    options.optimizer.momentum_form = MomentumForm::velocity;
    options.optimizer.learning_rate = {.base = 0.1, .schedule = "cosine", .warmup = 3, .total = 40};
    torch::nn::Sequential layers(torch::nn::Linear(torch::nn::LinearOptions(1, 1).bias(false)));
    layers->to(torch::kFloat64);
    const Model model = model_from(layers);
    WeightStore store(model, options);
    Bystander me;
    double x = store.read(me, 0).parameters->tensors[0].item<double>(), v = 0;
    RandomStream random(3, RandomUse::test);
    for (int t = 0; t < 39; ++t) {
      const double g = random.uniform() - 0.5, rate = options.optimizer.learning_rate.at(t);
      v = m * v - rate * g;
      x += v;
      store.apply(me, 0, {torch::full({1, 1}, g, torch::kFloat64)}, t);
      EXPECT_NEAR(store.read(me, 0).parameters->tensors[0].item<double>(), look_ahead ? x + m * v : x, 1e-12) << t;
      EXPECT_NEAR(store.iterate(me, 0)->tensors[0].item<double>(), x, 1e-12) << t;
    }
  }
}

/// Mean and variance of the batches themselves, with nothing left of the (0, 1) that a model begins with.
TEST(Statistics, are_the_plain_means_over_batches) {
  torch::nn::Sequential layers({{"flatten", torch::nn::AnyModule(torch::nn::Flatten())},
                                {"norm", torch::nn::AnyModule(torch::nn::BatchNorm1d(64))},
                                {"head", torch::nn::AnyModule(torch::nn::Linear(64, 4))}});
  const Model model = model_from(layers);
  WeightStore store(model, test::sgd());
  const auto maker = batches_of(8);
  refresh_statistics(model, store, *maker, {}, 5);
  torch::Tensor mean = torch::zeros({64}), variance = torch::zeros({64});
  for (int i = 0; i < 5; ++i) {
    const torch::Tensor input = maker->make(i).input.flatten(1);
    mean += input.mean(0) / 5;
    variance += input.var(0, /*unbiased=*/true) / 5;
  }
  Bystander me;
  const auto buffers = store.read(me, 1).buffers->tensors;
  EXPECT_TRUE(torch::allclose(buffers[0], mean, 1e-4, 1e-5));
  EXPECT_TRUE(torch::allclose(buffers[1], variance, 1e-4, 1e-5));
}

/// Replica 1 of one seed is not replica 0 of the next.
TEST(ReplicaSeed, no_run_of_another_seed_shares_a_replica) {
  std::set<std::uint64_t> seen;
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    EXPECT_EQ(replica_seed(seed, 0), seed);
    for (int replica = 0; replica < 16; ++replica) EXPECT_TRUE(seen.insert(replica_seed(seed, replica)).second);
  }
}

/// A frozen parameter stays, weight decay included, and nothing is computed for it.
TEST(Frozen, parameters_stay) {
  Model model = test::small_model("mlp");
  for (torch::Tensor& parameter : model.blocks[0].module.ptr()->parameters()) parameter.set_requires_grad(false);
  for (const char* schedule : {"serial", "ddg", "pd-asgd", "gpipe"}) {
    ScheduleOptions options{.name = schedule};
    if (find_schedule(schedule).uses_cuts) options.cuts = {1, 2};
    test::Lab lab(model, {.schedule = options, .store = test::sgd()});
    Bystander me;
    const auto before = lab.store.read(me, 0).parameters->tensors, above = lab.store.read(me, 1).parameters->tensors;
    std::vector<torch::Tensor> copies;
    for (const torch::Tensor& tensor : before) copies.push_back(tensor.clone());
    lab.run_on_threads(steps);
    const auto after = lab.store.read(me, 0).parameters->tensors;
    for (std::size_t i = 0; i < copies.size(); ++i) EXPECT_TRUE(torch::equal(after[i], copies[i])) << schedule;
    EXPECT_FALSE(torch::equal(lab.store.read(me, 1).parameters->tensors[0], above[0])) << schedule;
  }
}

/// A replica whose weights are not finite any more: the job has diverged, and the centre has not.
TEST_F(Clocks, a_centre_takes_nothing_that_is_not_finite) {
  for (const char* name : {"easgd", "async-easgd", "eamsgd", "downpour", "adownpour", "mvadownpour", "mdownpour", "admm"}) {
    SCOPED_TRACE(name);
    const CouplingEntry& entry = find_coupling(name);
    JobParts parts;
    parts.schedule.name = "serial";
    parts.coupling.name = name;
    parts.coupling.replicas = 2;
    parts.coupling.period = entry.default_period == 0 ? 0 : 1;
    parts.store = entry.look_ahead ? nesterov(0.05) : test::sgd(0.05, 0, 0);
    Herd herd(test::small_model("mlp"), std::move(parts), batches_of(8));
    Bystander me;
    herd.job->store(1).update(me, 0, "poison", [](const TensorSet&, std::vector<torch::Tensor>& next) {
      for (torch::Tensor& tensor : next) tensor.fill_(std::nan(""));
    });
    EXPECT_THROW(herd.go(0, 4), DivergedError);
    const WeightStore& centre = herd.job->coupling().evaluation_weights();
    for (int block = 0; block < centre.block_count(); ++block) {
      for (const torch::Tensor& tensor : centre.read(me, block).parameters->tensors) {
        EXPECT_TRUE(torch::isfinite(tensor).all().item<bool>());
      }
    }
  }
}

}  // namespace couplings_clocks_test
}  // namespace rubato
