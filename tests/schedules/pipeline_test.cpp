// gpipe and 1f1b are serial training with gradient accumulation, bit for bit, whatever the cuts, the timing and the runtime.
#include <cstdint>

#include <gtest/gtest.h>

#include "rubato/job/job.h"
#include "rubato/model/digest.h"
#include "rubato/model/dropout.h"
#include "rubato/model/model.h"
#include "rubato/schedules/pipeline.h"
#include "support/lab.h"

namespace rubato {
namespace schedules_pipeline_test {

using test::Lab;

/// Gradient accumulation written down literally, in plain libtorch on one thread: the micro-batches of a batch go one after the
/// other through the whole model, their gradients are added up in that order, one optimizer step applies the sum.
class Oracle {
 public:
  Oracle(const Model& model, int micro_batches, const StoreOptions& store, std::uint64_t seed)
      : loss_(model.task.loss), micro_batches_(micro_batches), seed_(seed) {
    for (const Block& block : model.blocks) {
      blocks_.push_back(block.module.clone());
      names_.push_back(block.name);
      for (const torch::Tensor& parameter : blocks_.back().ptr()->parameters()) parameters_.push_back(parameter);
    }
    optimizer_ = make_optimizer(store.optimizer, parameters_);
  }

  void step(const Batch& batch) {
    const std::int64_t samples = batch.input.size(0), count = std::min<std::int64_t>(micro_batches_, samples);
    std::vector<torch::Tensor> sum;
    std::int64_t begin = 0;
    for (std::int64_t m = 0; m < count; ++m) {
      const std::int64_t size = samples / count + (m < samples % count ? 1 : 0);
      const auto gradients = gradients_of(batch.input.narrow(0, begin, size), batch.target.narrow(0, begin, size),
                                          batch.index * micro_batches_ + m, count == 1 ? 1.0 : double(size) / double(samples));
      if (sum.empty()) {
        sum = gradients;
      } else {
        for (std::size_t i = 0; i < sum.size(); ++i) sum[i] = sum[i] + gradients[i];
      }
      begin += size;
    }
    for (std::size_t i = 0; i < sum.size(); ++i) parameters_[i].mutable_grad() = sum[i];
    optimizer_->step();
  }

  std::string digest() const {
    Digest digest;
    for (std::size_t i = 0; i < blocks_.size(); ++i) {
      for (const auto& item : blocks_[i].ptr()->named_parameters()) digest.add(names_[i] + "." + item.key(), item.value());
      for (const auto& item : blocks_[i].ptr()->named_buffers()) digest.add(names_[i] + "." + item.key(), item.value());
    }
    return digest.hex();
  }

 private:
  std::vector<torch::Tensor> gradients_of(torch::Tensor x, const torch::Tensor& target, std::int64_t pass, double share) {
    for (std::size_t i = 0; i < blocks_.size(); ++i) {
      const PassKeyScope random({seed_, static_cast<std::uint64_t>(pass), i});
      x = blocks_[i].forward<torch::Tensor>(x);
    }
    const torch::Tensor output = x.detach().requires_grad_(true);
    const torch::Tensor error = torch::autograd::grad({loss_(output, target)}, {output})[0];
    return torch::autograd::grad({x}, parameters_, {error * share});
  }

  LossFunction loss_;
  int micro_batches_;
  std::uint64_t seed_;
  std::vector<torch::nn::AnyModule> blocks_;
  std::vector<std::string> names_;
  std::vector<torch::Tensor> parameters_;
  std::unique_ptr<torch::optim::Optimizer> optimizer_;
};

struct Case {
  const char* name;
  Model (*model)();
  std::vector<int> cuts;
  int micro_batches;
  std::int64_t samples;  ///< of the data set, in batches of 8: the last one of an epoch is shorter
};

void PrintTo(const Case& row, std::ostream* out) {
  *out << row.name;
}

std::vector<Case> cases() {
  const auto norm = [] { return test::norm_and_dropout_model(); };
  const auto resnet = [] { return test::small_model("resnet8"); };
  const auto mlp = [] { return test::small_model("mlp", 1, 0.3); };
  return {{"norm_and_dropout_k1_m3", norm, {}, 3, 22},           {"norm_and_dropout_k2_m4", norm, {3}, 4, 64},
          {"norm_and_dropout_k3_m3", norm, {2, 4}, 3, 22},       {"norm_and_dropout_k4_m2", norm, {2, 3, 5}, 2, 22},
          {"resnet8_k4_m3", resnet, {1, 2, 3}, 3, 22},           {"resnet8_k2_m1", resnet, {2}, 1, 22},
          {"mlp_k3_more_parts_than_samples", mlp, {1, 2}, 5, 19}};
}

class PipelineTest : public ::testing::TestWithParam<Case> {
 protected:
  static constexpr int batches = 10;
  static Lab lab(const std::string& name) {
    return Lab(GetParam().model(),
               {.schedule = {.name = name, .cuts = GetParam().cuts, .values = {{"micro-batches", GetParam().micro_batches}}},
                .store = test::sgd()},
               test::small_images(GetParam().samples));
  }
};

TEST_P(PipelineTest, equals_gradient_accumulation_on_one_thread_bit_for_bit) {
  for (const std::string& name : pipeline_names()) {
    Lab pipeline = lab(name);
    Oracle oracle(pipeline.model, GetParam().micro_batches, test::sgd(), pipeline.options.stage.seed);
    for (int t = 0; t < batches; ++t) oracle.step(pipeline.batches->make(t));
    EXPECT_EQ(pipeline.run_on_threads(batches).store.digest(), oracle.digest()) << name;
  }
}

TEST_P(PipelineTest, timing_runtime_and_segments_change_nothing) {
  Lab calm = lab("gpipe");
  const std::string expected = calm.run_on_threads(batches).store.digest();
  RuntimeOptions jittery{.seed = 3};
  for (std::size_t k = 0; k <= GetParam().cuts.size(); ++k) jittery.delays.push_back({"1f1b-" + std::to_string(k), 0, 1});
  EXPECT_EQ(lab("1f1b").run_on_threads(batches, jittery).store.digest(), expected);
  Lab parts = lab("1f1b");
  const auto runtime = make_thread_runtime({});
  parts.run(*runtime, 0, 1).run(*runtime, 1, 4).run(*runtime, 4, batches);
  EXPECT_EQ(parts.store.digest(), expected);
  if (!test::has_simulator()) return;
  Lab simulated = lab("1f1b");
  simulated.replica.costs.assign(simulated.model.blocks.size(), BlockCost{0.5, 1, 0.1});
  simulated.run(*make_simulator({.hosts = 4}, {}), 0, batches);
  EXPECT_EQ(simulated.store.digest(), expected);
}

TEST_P(PipelineTest, applies_one_gradient_per_batch_and_block_and_is_never_stale) {
  for (const std::string& name : pipeline_names()) {
    Lab pipeline = lab(name);
    pipeline.run_on_threads(batches);
    EXPECT_EQ(pipeline.reports.losses().size(), static_cast<std::size_t>(batches));
    for (int block = 0; block < pipeline.store.block_count(); ++block) {
      EXPECT_EQ(pipeline.store.staleness(block).updates, batches);
      EXPECT_EQ(pipeline.store.staleness(block).max, 0);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, PipelineTest, ::testing::ValuesIn(cases()), [](const auto& info) { return info.param.name; });

Lab plain_lab(ScheduleOptions schedule) {
  return Lab(test::small_model("mlp", 1, 0.3), {.schedule = std::move(schedule), .store = test::sgd()}, test::small_images(22));
}

TEST(PipelineLimits, one_micro_batch_is_serial_bit_for_bit) {
  Lab serial = plain_lab({.name = "serial"});
  const std::string expected = serial.run_on_threads(12).store.digest();
  for (const std::string& name : pipeline_names()) {
    Lab pipeline = plain_lab({.name = name, .cuts = {1, 2}, .values = {{"micro-batches", 1}}});
    EXPECT_EQ(pipeline.run_on_threads(12).store.digest(), expected) << name;
    EXPECT_EQ(pipeline.reports.losses(), serial.reports.losses());
  }
}

// Without batch statistics and dropout the number of micro-batches, equal in size or not, only changes the rounding.
TEST(PipelineLimits, the_gradient_is_that_of_the_whole_batch) {
  const auto trained = [](ScheduleOptions schedule) {
    auto lab = std::make_unique<Lab>(test::small_model("mlp", 1, 0), Lab::Options{.schedule = schedule, .store = test::sgd()},
                                     test::small_images(22));
    lab->run_on_threads(6);
    return lab;
  };
  const auto serial = trained({.name = "serial"});
  const auto pipeline = trained({.name = "1f1b", .cuts = {1, 2}, .values = {{"micro-batches", 5}}});
  Bystander me;
  for (int block = 0; block < serial->store.block_count(); ++block) {
    const auto expected = serial->store.read(me, block).parameters, actual = pipeline->store.read(me, block).parameters;
    for (std::size_t i = 0; i < expected->tensors.size(); ++i) {
      EXPECT_TRUE(torch::allclose(actual->tensors[i], expected->tensors[i], 1e-4, 1e-5)) << block << "," << i;
    }
  }
  const auto losses = serial->reports.losses(), parts = pipeline->reports.losses();
  for (std::size_t i = 0; i < losses.size(); ++i) EXPECT_NEAR(parts[i], losses[i], 1e-4);
}

TEST(PipelineLimits, backward_weights_other_than_those_of_the_forward_pass_are_refused) {
  for (const StaleWeights stale : {StaleWeights::live, StaleWeights::replayed}) {
    EXPECT_THROW(Lab(test::small_model("mlp"), {.schedule = {.name = "gpipe"}, .stage = {.stale_weights = stale}}), UsageError);
  }
}

/// Digest over two replicas that share the data and are tied by `coupling`.
std::string digest_of_replicas(const std::string& coupling, ScheduleOptions schedule) {
  const Model model = test::small_model("mlp", 1, 0.3);
  const auto batches = std::make_shared<const BatchMaker>(test::small_images(), BatchOptions{.batch_size = 8});
  test::Reports reports;
  Job job(model,
          {.schedule = std::move(schedule),
           .coupling = {.name = coupling, .replicas = 2, .period = 2, .values = {{"moving-rate", 0.3}}},
           .store = test::sgd(),
           .batches = {batches, batches},
           .shards = {{0, 2}, {1, 2}}},
          reports);
  job.open(0, 8);
  make_thread_runtime({})->run(job.roles());
  return job.digest();
}

TEST(PipelineLimits, any_coupling_sees_the_steps_of_serial) {
  for (const char* coupling : {"allreduce", "easgd", "local-sgd"}) {
    const std::string expected = digest_of_replicas(coupling, {.name = "serial"});
    for (const std::string& name : pipeline_names()) {
      EXPECT_EQ(digest_of_replicas(coupling, {.name = name, .cuts = {1, 2}, .values = {{"micro-batches", 1}}}), expected)
          << name << " and " << coupling;
    }
    EXPECT_EQ(digest_of_replicas(coupling, {.name = "gpipe", .cuts = {1}, .values = {{"micro-batches", 3}}}),
              digest_of_replicas(coupling, {.name = "1f1b", .cuts = {2}, .values = {{"micro-batches", 3}}}))
        << coupling;
  }
}

}  // namespace schedules_pipeline_test
}  // namespace rubato
