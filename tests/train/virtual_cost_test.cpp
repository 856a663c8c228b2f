// Whatever a method computes takes virtual time: losses, gradient models and the shrinking of gradients as well as blocks.
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>
#include <cstdint>
#include <map>

#include "cost/flop_counter.h"
#include "rubato/cost/profile.h"
#include "rubato/model/model.h"
#include "rubato/schedules/gradient_model.h"
#include "rubato/train/trainer.h"
#include "support/lab.h"
#include "support/small_mnist.h"
#include "support/temporary_directory.h"

namespace rubato {
namespace train_virtual_cost_test {

/// Seconds of each kind of computation.
class Durations final : public EventSink {
 public:
  void add(const std::string&, const Event& event, double begin, double end) override {
    if (event.kind == EventKind::compute) seconds[event.computation.kind] += end - begin;
  }
  std::map<ComputeKind, double> seconds;
};

class VirtualCost : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!test::has_simulator()) GTEST_SKIP() << "built without SimGrid";
  }
};

/// 10 full batches of 8 with a cost for everything.
std::map<ComputeKind, double> durations(const ScheduleOptions& schedule) {
  test::Lab lab(test::small_model("mlp"),
                {.schedule = schedule, .store = test::sgd(), .costs = std::vector<BlockCost>(3, BlockCost{1, 2, 0.5})},
                test::small_images(80));
  lab.replica.work = {.loss = 0.25, .per_operation = 1e-3};
  Durations found;
  lab.run(*make_simulator({.hosts = 3}, {.events = &found}), 0, 10);
  return found.seconds;
}

TEST_F(VirtualCost, a_loss_takes_its_time_under_every_schedule) {
  for (const ScheduleOptions& schedule :
       std::vector<ScheduleOptions>{{.name = "serial"},
                                    {.name = "hogwild", .values = {{"workers", 2}}},
                                    {.name = "ddg", .cuts = {1}},
                                    {.name = "features-replay", .cuts = {2}},
                                    {.name = "fdg", .cuts = {1}},
                                    {.name = "dni", .cuts = {1}},
                                    {.name = "pd-asgd"},
                                    {.name = "gpipe", .cuts = {1}, .values = {{"micro-batches", 4}}},
                                    {.name = "1f1b", .cuts = {1, 2}, .values = {{"micro-batches", 3}}},
                                    {.name = "lpp", .values = {{"workers", 2}}}}) {
    EXPECT_NEAR(durations(schedule)[ComputeKind::loss], 10 * 0.25, 1e-6) << schedule.name;
  }
}

TEST_F(VirtualCost, shrinking_takes_an_operation_for_each_element) {
  const auto shrunk = durations({.name = "fdg", .cuts = {1}, .values = {{"gradient-shrinking", 0.5}}});
  const double messages = shrunk.at(ComputeKind::shrink) / (8 * 16 * 1e-3);  // each 8 samples of 16 activations
  EXPECT_NEAR(messages, std::round(messages), 1e-6);
  EXPECT_GE(std::round(messages), 8) << "all gradients that have arrived";
  EXPECT_FALSE(durations({.name = "fdg", .cuts = {1}, .values = {{"gradient-shrinking", 1}}}).contains(ComputeKind::shrink));
}

TEST_F(VirtualCost, gradient_models_take_theirs) {
  const GradientModelOptions small{.layers = 1, .width = 8}, large{.layers = 2, .width = 64};
  for (const GradientModelOptions& model : {small, large}) {
    const auto took =
        durations({.name = "dni", .cuts = {1}, .values = {{"dni-layers", model.layers}, {"dni-width", model.width}}});
    const auto operations = make_synthetic_gradient(model, 1, 0)->operations(torch::empty({8, 16}));
    EXPECT_NEAR(took.at(ComputeKind::predict), 10 * operations.predict * 1e-3, 1e-6);
    EXPECT_NEAR(took.at(ComputeKind::learn), 9 * operations.learn * 1e-3, 1e-6) << "from all batches but the last";
  }
}

/// What is said to be computed is what is computed.
TEST(GradientModelOperations, are_those_that_its_tensors_count) {
  struct Case {
    GradientModelOptions options;
    std::vector<std::int64_t> activation;
  };
  for (const Case& row :
       {Case{{.layers = 0}, {16, 40}}, Case{{.layers = 2, .width = 64}, {16, 40}},
        Case{{.layers = 1, .width = 32, .labels = true, .classes = 4}, {16, 40}}, Case{{.layers = 2}, {8, 6, 9, 9}}}) {
    const auto model = make_synthetic_gradient(row.options, 1, 0);
    const AtCut at{0, torch::empty(row.activation).normal_(0, 1, test::generator(1)),
                   torch::zeros({row.activation[0]}, torch::kInt64)};
    const torch::Tensor gradient = torch::empty(row.activation).normal_(0, 1, test::generator(2));
    model->predict(at);  // which makes the layers
    double predict = 0, learn = 0;
    {
      const FlopCounter counter;
      model->predict(at);
      predict = counter.flops();
    }
    {
      const FlopCounter counter;
      model->learn(at, gradient);
      learn = counter.flops();
    }
    const auto said = model->operations(at.activation);
    EXPECT_NEAR(said.predict / predict, 1, 0.25);
    if (row.activation.size() == 2) EXPECT_NEAR(said.learn / learn, 1, 0.25);  // backward passes of convolutions are not counted
    const auto hollow = model->operations(torch::empty(row.activation, torch::kMeta));
    EXPECT_EQ(hollow.predict, said.predict);
    EXPECT_EQ(hollow.learn, said.learn);
  }
}

/// Through the whole command: what costs are given or counted, everything takes time, the same with and without gradients.
class VirtualCostOfPlans : public VirtualCost {
 protected:
  void SetUp() override {
    VirtualCost::SetUp();
    if (IsSkipped()) return;
    std::filesystem::create_directory(folder_.path() / "data");
    test::write_small_mnist(folder_.path() / "data");
  }
  TrainOptions options(const std::string& schedule) const {
    TrainOptions o;
    o.data = "mnist";
    o.data_dir = (folder_.path() / "data").string();
    o.model = "mlp";
    o.width = 16;
    o.batch_size = 20;
    o.steps = 10;
    o.lr = 0.01;
    o.evaluate_every = -1;
    o.schedule = schedule;
    if (find_schedule(schedule).uses_cuts) o.stages = 2, o.cuts = "1";
    return o;
  }
  double seconds(const TrainOptions& options, RuntimeChoice runtime = {}) {
    runtime.simulated = true;
    runtime.platform.platform = "uniform:4";
    const test::TemporaryDirectory place;
    Plan plan = make_plan(options, runtime);
    plan.options.run_dir = (place.path() / "run").string();
    Trainer trainer(std::move(plan), nullptr);
    trainer.run();
    return trainer.virtual_seconds();
  }
  test::TemporaryDirectory folder_;
};

TEST_F(VirtualCostOfPlans, counted_steps_take_the_blocks_and_the_loss) {
  const Plan plan = make_plan(options("serial"), {.simulated = true});
  double step = plan.work.loss;
  for (const BlockCost& cost : plan.costs) step += cost.forward + cost.backward + cost.update;
  EXPECT_GT(plan.work.loss, 0);
  EXPECT_NEAR(plan.work.per_operation, 1 / 50e9, 1e-15);
  EXPECT_NEAR(seconds(options("serial")), 10 * step, 1e-9);
}

TEST_F(VirtualCostOfPlans, larger_gradient_models_and_shrinking_take_longer_whatever_costs_are_known) {
  for (const bool compute : {true, false}) {
    for (const std::string& costs : {"", "1ms:2ms"}) {
      const RuntimeChoice runtime{.block_costs = costs, .compute = compute};
      TrainOptions small = options("dni"), large = options("dni");
      small.values.set("dni-layers", 0);
      large.values.set("dni-layers", 3);
      EXPECT_GT(seconds(large, runtime), 1.05 * seconds(small, runtime)) << costs;
      TrainOptions whole = options("fdg"), shrunk = options("fdg");
      whole.values.set("gradient-shrinking", 1);
      shrunk.values.set("gradient-shrinking", 0.5);
      EXPECT_GE(seconds(shrunk, runtime), seconds(whole, runtime)) << costs << ": it may hide in a wait";
    }
  }
  EXPECT_DOUBLE_EQ(seconds(options("dni"), {.compute = false}), seconds(options("dni"), {.compute = true}));
}

/// Tells the speed at the last test.
class LastRate final : public TrainListener {
 public:
  void note(const std::string&) override {}
  void tested(double, double, const Evaluation&, double samples_per_second) override { rate = samples_per_second; }
  double rate = 0;
};

TEST_F(VirtualCostOfPlans, speed_is_by_virtual_time) {
  TrainOptions slow = options("serial");
  const test::TemporaryDirectory place;
  slow.run_dir = (place.path() / "run").string();
  LastRate last;
  Trainer trainer(make_plan(slow, {.simulated = true, .block_costs = "1s:2s"}), &last);
  trainer.run();
  EXPECT_NEAR(last.rate, 20.0 / 9, 1e-6);  // three blocks of one second and two
  EXPECT_NEAR(trainer.samples_per_second(), last.rate, 1e-9);
}

}  // namespace train_virtual_cost_test
}  // namespace rubato
