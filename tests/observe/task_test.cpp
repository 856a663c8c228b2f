// What counts as right belongs to the task: training and tests count the same, whatever the shapes look like.
#include "rubato/model/task.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>
#include <cstdint>
#include <functional>

#include "rubato/core/error.h"
#include "rubato/model/model.h"
#include "rubato/observe/evaluate.h"
#include "support/lab.h"

namespace rubato {
namespace train_task_test {

using ::testing::HasSubstr;
using torch::nn::AnyModule;

struct Case {
  const char* name;
  std::function<Model()> model;
  std::function<Dataset()> data;
  /// Of one sample's output (without N) and targets: the prediction at each place, flat.
  std::function<std::vector<std::int64_t>(const torch::Tensor& output)> predictions;
};

void PrintTo(const Case& row, std::ostream* out) {
  *out << row.name;
}

Dataset images(std::int64_t samples, std::int64_t size, torch::Tensor targets, std::int64_t classes) {
  Dataset data{.name = "images", .classes = classes, .mean = {0.5}, .deviation = {0.25}};
  data.inputs = torch::randint(0, 256, {samples, 1, size, size}, test::generator(3), torch::kInt64).to(torch::kUInt8);
  data.targets = targets;
  return data;
}

torch::Tensor some(at::IntArrayRef shape, std::int64_t classes) {
  return torch::randint(0, classes, shape, test::generator(4), torch::kInt64);
}

/// Drawn, not as libtorch draws them: from a stream of its own.
AnyModule drawn(AnyModule module) {
  const torch::NoGradGuard no_grad;
  std::uint64_t seed = 11;
  for (torch::Tensor& parameter : module.ptr()->parameters()) parameter.normal_(0, 1, test::generator(seed++));
  return module;
}

std::vector<std::int64_t> largest(const torch::Tensor& scores, std::int64_t classes) {
  const torch::Tensor table = scores.movedim(classes, 0).contiguous().view({scores.size(classes), -1});
  const auto score = table.accessor<float, 2>();
  std::vector<std::int64_t> best(static_cast<std::size_t>(table.size(1)), 0);
  for (std::int64_t place = 0; place < table.size(1); ++place) {
    for (std::int64_t c = 1; c < table.size(0); ++c) {
      if (score[c][place] > score[best[static_cast<std::size_t>(place)]][place]) best[static_cast<std::size_t>(place)] = c;
    }
  }
  return best;
}

std::vector<std::int64_t> above_zero(const torch::Tensor& output) {
  const torch::Tensor flat = output.flatten().contiguous();
  std::vector<std::int64_t> yes;
  for (std::int64_t i = 0; i < flat.numel(); ++i) yes.push_back(flat[i].item<float>() > 0 ? 1 : 0);
  return yes;
}

const std::vector<Case>& cases() {
  const auto of_pixels = [](int outputs) {
    return model_from({{"flat", AnyModule(torch::nn::Flatten())}, {"head", drawn(AnyModule(torch::nn::Linear(16, outputs)))}});
  };
  const auto maps = [](int outputs, Task task) {
    return model_from({{"conv", drawn(AnyModule(torch::nn::Conv2d(torch::nn::Conv2dOptions(1, outputs, 3).padding(1))))}},
                      std::move(task));
  };
  const auto with = [](Model model, Task task) {
    model.task = std::move(task);
    return model;
  };
  static const std::vector<Case> all = {
      {"a_label_for_each_image", [=] { return of_pixels(5); }, [] { return images(40, 4, some({40}, 5), 5); },
       [](const torch::Tensor& output) { return largest(output, 0); }},
      {"a_label_for_each_pixel", [=] { return maps(4, classification()); },
       [] {
         return images(40, 4, some({40, 4, 4}, 4), 4);
       },
       [](const torch::Tensor& output) { return largest(output, 0); }},
      {"the_next_character",
       [] {
         return model_from(
             {{"embedding", drawn(AnyModule(torch::nn::Embedding(6, 8)))}, {"head", drawn(AnyModule(torch::nn::Linear(8, 6)))}},
             language_modelling());
       },
       [] {
         return Dataset{
             .name = "text", .inputs = some({40, 6}, 6), .targets = some({40, 6}, 6).flip(0).contiguous(), .classes = 6};
       },
       [](const torch::Tensor& output) { return largest(output, 1); }},
      {"one_logit", [=] { return with(of_pixels(1), binary_classification()); }, [] { return images(40, 4, some({40}, 2), 2); },
       above_zero},
      {"several_answers", [=] { return with(of_pixels(3), binary_classification()); },
       [] {
         return images(40, 4, some({40, 3}, 2), 2);
       },
       above_zero},
      {"one_logit_for_each_pixel", [=] { return maps(1, binary_classification()); },
       [] {
         return images(40, 4, some({40, 4, 4}, 2), 2);
       },
       above_zero}};
  return all;
}

class TaskTest : public ::testing::TestWithParam<Case> {};

TEST_P(TaskTest, counts_what_is_right_in_training_and_in_tests) {
  const Model model = GetParam().model();
  const Dataset data = GetParam().data();
  const WeightStore store(model, test::sgd());
  const int blocks = store.block_count();
  const Stage stage(model, 0, blocks, {});
  const BatchMaker maker(std::make_shared<const Dataset>(data), {.batch_size = data.size(), .shuffle = false});
  const Batch batch = maker.make(0);
  Bystander me;
  std::vector<Snapshot> weights;
  for (int block = 0; block < blocks; ++block) weights.push_back(store.read(me, block));
  const Pass pass = stage.forward(weights, batch.input, 0);

  std::int64_t right = 0, all = 0;
  for (std::int64_t i = 0; i < data.size(); ++i) {
    const torch::Tensor wanted = data.targets[i].flatten();
    const std::vector<std::int64_t> predicted = GetParam().predictions(pass.output()[i]);
    ASSERT_EQ(static_cast<std::int64_t>(predicted.size()), wanted.numel());
    for (std::int64_t place = 0; place < wanted.numel(); ++place, ++all) {
      if (wanted[place].item<std::int64_t>() == predicted[static_cast<std::size_t>(place)]) ++right;
    }
  }
  ASSERT_GT(right, 0);
  ASSERT_LT(right, all);
  const LossResult training = stage.loss(pass, batch.target);
  EXPECT_EQ(training.correct, right);
  EXPECT_EQ(training.predictions, all);
  EXPECT_TRUE(std::isfinite(training.loss));
  const Evaluation test = evaluate(model, store, data, {}, 7);
  ASSERT_TRUE(test.accuracy.has_value());
  EXPECT_NEAR(*test.accuracy, 100.0 * static_cast<double>(right) / static_cast<double>(all), 1e-9);
  EXPECT_NEAR(test.loss, training.loss, 1e-5);
}

INSTANTIATE_TEST_SUITE_P(All, TaskTest, ::testing::ValuesIn(cases()),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(Task, losses_are_those_of_the_books) {
  const torch::Tensor scores = torch::tensor({{{0.0f, std::log(3.0f)}, {std::log(4.0f), 0.0f}}});  // 1 x 2 x 2
  const torch::Tensor target = torch::tensor({{0, 1}});
  // Classes at dimension 1: columns (0, log 4) and (log 3, 0).
  EXPECT_NEAR(classification().loss(scores, target).item<double>(), (std::log(5.0) + std::log(4.0)) / 2, 1e-6);
  // Classes last: rows (0, log 3) and (log 4, 0).
  EXPECT_NEAR(language_modelling().loss(scores, target).item<double>(), (std::log(4.0) + std::log(5.0)) / 2, 1e-6);
  EXPECT_NEAR(language_modelling().loss(scores, torch::tensor({{1, 1}})).item<double>(), (std::log(4.0 / 3) + std::log(5.0)) / 2,
              1e-6);
  const torch::Tensor logit = torch::tensor({{std::log(3.0f)}, {0.0f}});
  EXPECT_NEAR(binary_classification().loss(logit, torch::tensor({1, 0})).item<double>(), (std::log(4.0 / 3) + std::log(2.0)) / 2,
              1e-6);
}

TEST(Task, shapes_that_do_not_belong_to_it_are_refused) {
  const auto refusal = [](const Task& task, at::IntArrayRef output, at::IntArrayRef target) -> std::string {
    try {
      task.loss(torch::zeros(output), torch::zeros(target, torch::kInt64));
    } catch (const UsageError& error) {
      return error.what();
    }
    return "taken";
  };
  EXPECT_THAT(refusal(classification(), {2, 3, 4}, {2, 3}), HasSubstr("[2, 3, 4]"));
  EXPECT_THAT(refusal(classification(), {2, 3, 4}, {2, 3}), HasSubstr("language_modelling()"));
  EXPECT_THAT(refusal(language_modelling(), {2, 3, 4}, {2, 4}), HasSubstr("[2, 4]"));
  EXPECT_THAT(refusal(binary_classification(), {2, 3}, {2}), HasSubstr("one logit for each target"));
  EXPECT_THAT(refusal(binary_classification(), {2, 1}, {2, 2}), HasSubstr("one logit for each target"));
  EXPECT_EQ(refusal(binary_classification(), {2, 4, 1}, {2, 4}), "taken");
  EXPECT_EQ(refusal(classification(), {2, 3}, {2}), "taken");
}

/// A loss alone says nothing about right and wrong.
TEST(Task, without_a_count_there_is_no_accuracy) {
  const Case& row = cases().front();
  Model model = row.model();
  model.task = {"own", classification().loss};
  const WeightStore store(model, test::sgd());
  const Dataset data = row.data();
  EXPECT_FALSE(evaluate(model, store, data, {}).accuracy.has_value());
}

}  // namespace train_task_test
}  // namespace rubato
