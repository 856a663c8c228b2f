// Jaderberg et al. 2017, "Decoupled Neural Interfaces using Synthetic Gradients": one test per statement.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdint>

#include <numeric>

#include "support/oracle.h"

namespace rubato {
namespace paper_dni_test {

using test::Lab;
using test::OracleModule;

/// Gradients at each cut of a run of plain backpropagation on one thread: [cut][batch].
using History = std::vector<std::vector<torch::Tensor>>;

History backpropagation(const Lab& lab, int batches) {
  std::vector<OracleModule> modules = test::oracle_modules(lab);
  History at_cut(modules.size() - 1);
  for (int t = 0; t < batches; ++t) {
    const Batch batch = lab.batches->make(t);
    std::vector<OracleModule::Trip> trips;
    torch::Tensor h = batch.input;
    for (OracleModule& module : modules) {
      trips.push_back(module.forward(h, t));
      h = trips.back().output.detach();
    }
    torch::Tensor grad = test::gradient_of_loss(lab.model, h, batch.target);
    for (std::size_t k = modules.size(); k-- > 0;) {
      grad = modules[k].step(trips[k], grad);
      if (k > 0) at_cut[k - 1].push_back(grad);
    }
  }
  return at_cut;
}

/// Knows the true gradients, and counts how many came back from above that were these.
struct Clairvoyant final : GradientModel {
  Clairvoyant(const std::vector<torch::Tensor>& gradients_, int& confirmed_) : gradients(gradients_), confirmed(confirmed_) {}
  torch::Tensor predict(const AtCut& at) override { return gradients.at(static_cast<std::size_t>(at.batch)); }
  void learn(const AtCut& at, const torch::Tensor& gradient) override {
    confirmed += torch::equal(gradient, gradients.at(static_cast<std::size_t>(at.batch))) ? 1 : 0;
  }
  const std::vector<torch::Tensor>& gradients;
  int& confirmed;
};

/// Lets `inner` learn, but predicts zero.
struct Muted final : GradientModel {
  Muted(std::unique_ptr<GradientModel> inner_, std::atomic<bool>& clean_) : inner(std::move(inner_)), clean(clean_) {}
  torch::Tensor predict(const AtCut& at) override { return torch::zeros_like(at.activation); }
  void learn(const AtCut& at, const torch::Tensor& gradient) override {
    if (at.activation.requires_grad() || gradient.requires_grad()) clean = false;
    if (inner) inner->learn(at, gradient);
  }
  std::unique_ptr<GradientModel> inner;
  std::atomic<bool>& clean;
};

struct Case {
  const char* name;
  Model (*model)();
  std::vector<int> cuts;
  StoreOptions (*store)();
};

void PrintTo(const Case& row, std::ostream* out) {
  *out << row.name;
}

std::vector<Case> cases() {
  const auto norm = [] { return test::norm_and_dropout_model(); };
  const auto resnet = [] { return test::small_model("resnet8"); };
  const auto sgd = [] { return test::sgd(); };
  const auto adam = [] { return test::adam(); };
  return {{"norm_and_dropout_k2", norm, {3}, sgd},
          {"norm_and_dropout_k4_adam", norm, {2, 3, 5}, adam},
          {"resnet8_k3", resnet, {2, 3}, sgd}};
}

class DniTest : public ::testing::TestWithParam<Case> {
 protected:
  static constexpr int batches = 12;
  Lab lab(const char* schedule = "dni") const {
    return Lab(GetParam().model(), {.schedule = {.name = schedule, .cuts = GetParam().cuts}, .store = GetParam().store()});
  }
};

TEST_P(DniTest, with_the_true_gradient_it_is_backpropagation) {
  Lab dni = lab(), serial = lab("serial");
  const History truth = backpropagation(dni, batches);
  std::vector<int> confirmed(GetParam().cuts.size());
  dni.schedule = make_dni(dni.replica, dni.options.schedule, [&](int cut) {
    const auto index = static_cast<std::size_t>(cut);
    return std::make_unique<Clairvoyant>(truth[index], confirmed[index]);
  });
  EXPECT_EQ(dni.run_on_threads(batches).store.digest(), serial.run_on_threads(batches).store.digest());
  for (const int count : confirmed) EXPECT_EQ(count, batches - 1) << "the stage above returns the true gradient of each batch";
}

TEST_P(DniTest, the_first_step_leaves_every_block_below_a_cut_unchanged) {
  const StoreOptions store = test::sgd(0.1, 0.9, /*decay=*/0);
  const auto make = [&](bool labels) {
    return Lab(
        GetParam().model(),
        {.schedule = {.name = "dni", .cuts = GetParam().cuts, .classes = 4, .values = {{"dni-labels", labels}}}, .store = store});
  };
  Bystander me;
  for (const bool labels : {false, true}) {
    Lab before = make(labels), after = make(labels);
    after.run_on_threads(1);
    for (int block = 0; block < after.store.block_count(); ++block) {
      const auto was = before.store.read(me, block).parameters->tensors, is = after.store.read(me, block).parameters->tensors;
      if (was.empty()) continue;
      EXPECT_EQ(torch::equal(was[0], is[0]), block < GetParam().cuts.back()) << "block " << block;
    }
  }
}

TEST_P(DniTest, what_the_gradient_model_learns_never_touches_the_weights) {
  std::atomic<bool> clean{true};
  std::vector<std::string> digests;
  for (const bool learns : {false, true}) {
    Lab dni = lab();
    dni.schedule = make_dni(dni.replica, dni.options.schedule, [&](int cut) {
      return std::make_unique<Muted>(learns ? make_synthetic_gradient({}, 1, cut) : nullptr, clean);
    });
    digests.push_back(dni.run_on_threads(batches).store.digest());
  }
  EXPECT_EQ(digests[0], digests[1]);
  EXPECT_TRUE(clean) << "activation and gradient come without history";
}

TEST_P(DniTest, no_gradient_is_stale) {
  Lab dni = lab();
  dni.run_on_threads(batches);
  for (int block = 0; block < dni.store.block_count(); ++block) {
    EXPECT_EQ(dni.store.staleness(block).updates, batches);
    EXPECT_EQ(dni.store.staleness(block).max, 0);
  }
}

INSTANTIATE_TEST_SUITE_P(All, DniTest, ::testing::ValuesIn(cases()), [](const auto& info) { return info.param.name; });

double last_losses(const ScheduleOptions& schedule, const MakeGradientModel& make_model = {}) {
  Lab lab(test::small_model("mlp"), {.schedule = schedule, .store = test::sgd(0.02, 0.5, 0)});
  if (make_model) lab.schedule = make_dni(lab.replica, schedule, make_model);
  const auto losses = lab.run_on_threads(400).reports.losses();
  return std::accumulate(losses.end() - 16, losses.end(), 0.0) / 16;
}

TEST(DniLearning, predictions_lower_the_loss_further_than_the_top_stage_can_alone) {
  const ScheduleOptions plain{.name = "dni", .cuts = {2}},
      conditioned{.name = "dni", .cuts = {2}, .classes = 4, .values = {{"dni-labels", true}}};
  std::atomic<bool> clean{true};
  const double top_alone = last_losses(plain, [&](int) { return std::make_unique<Muted>(nullptr, clean); });
  EXPECT_LT(last_losses(plain), 0.9 * top_alone);
  EXPECT_LT(last_losses(conditioned), 0.9 * top_alone);
}

// With the loss |h - y|^2 / 2 right above the cut the gradient is h - y: linear in (h, y), so a linear cDNI can be exact.
TEST(DniLearning, a_linear_model_that_sees_the_labels_reaches_the_gradient_of_a_square_loss) {
  const std::int64_t samples = 16, features = 4;
  const auto model = make_synthetic_gradient({.layers = 0, .learning_rate = 0.01, .labels = true, .classes = features}, 1, 0);
  const auto blind = make_synthetic_gradient({.layers = 0, .learning_rate = 0.01}, 1, 0);
  torch::Generator random = test::generator(5);
  const auto draw = [&](std::int64_t batch) {
    return AtCut{batch, torch::randn({samples, features}, random), torch::randint(0, features, {samples}, random, torch::kInt64)};
  };
  const auto truth = [&](const AtCut& at) {
    return (at.activation - torch::one_hot(at.target, features).to(torch::kFloat32)) / static_cast<double>(samples);
  };
  for (int t = 0; t < 1500; ++t) {
    const AtCut at = draw(t);
    model->learn(at, truth(at));
    blind->learn(at, truth(at));
  }
  const AtCut fresh = draw(1500);
  const torch::Tensor wanted = truth(fresh);
  const double size = wanted.norm().item<double>();
  EXPECT_LT((model->predict(fresh) - wanted).norm().item<double>(), 0.01 * size);
  EXPECT_GT((blind->predict(fresh) - wanted).norm().item<double>(), 0.2 * size) << "what it cannot see it cannot predict";
}

std::vector<torch::Tensor> parameters_of(const GradientModel& model) {
  torch::serialize::OutputArchive out;
  model.save(out);
  std::stringstream text;
  out.save_to(text);
  torch::serialize::InputArchive in;
  in.load_from(text);
  torch::IValue parameters;
  in.read("parameters", parameters);
  return parameters.toTensorVector();
}

TEST(SyntheticGradient, starts_at_zero_and_its_first_step_moves_the_last_layer_only) {
  const auto model = make_synthetic_gradient({.width = 8}, 1, 0);
  const AtCut at{0, torch::randn({5, 3}, test::generator(1)), torch::zeros({5}, torch::kInt64)};
  EXPECT_EQ(model->predict(at).abs().sum().item<double>(), 0);
  const auto before = parameters_of(*model);
  model->learn(at, torch::ones({5, 3}));
  const auto after = parameters_of(*model);
  ASSERT_EQ(before.size(), 6u);
  for (std::size_t i = 0; i < before.size(); ++i) EXPECT_EQ(torch::equal(before[i], after[i]), i < 4) << "tensor " << i;
  EXPECT_GT(before[0].abs().max().item<double>(), 0);
}

TEST(SyntheticGradient, depends_on_seed_and_cut_alone) {
  const AtCut at{0, torch::ones({2, 3}), torch::zeros({2}, torch::kInt64)};
  const auto first_layer = [&](std::uint64_t seed, int cut) {
    const auto model = make_synthetic_gradient({.width = 8}, seed, cut);
    model->predict(at);
    return parameters_of(*model)[0];
  };
  EXPECT_TRUE(torch::equal(first_layer(1, 0), first_layer(1, 0)));
  EXPECT_FALSE(torch::equal(first_layer(1, 0), first_layer(2, 0)));
  EXPECT_FALSE(torch::equal(first_layer(1, 0), first_layer(1, 1)));
}

TEST(SyntheticGradient, fits_activations_of_every_shape) {
  struct Shapes {
    std::vector<std::int64_t> activation, target;
  };
  for (const Shapes& shapes :
       {Shapes{{4, 6}, {4}}, Shapes{{4, 6, 5, 5}, {4}}, Shapes{{4, 7, 6}, {4, 7}}, Shapes{{4, 7, 6}, {4}}}) {
    for (const torch::ScalarType type : {torch::kFloat32, torch::kBFloat16}) {
      const auto model = make_synthetic_gradient({.width = 8, .labels = true, .classes = 3}, 1, 0);
      const AtCut at{0, torch::randn(shapes.activation, test::generator(1)).to(type),
                     torch::randint(0, 3, shapes.target, test::generator(2), torch::kInt64)};
      model->learn(at, torch::ones_like(at.activation));
      const torch::Tensor predicted = model->predict(at);
      EXPECT_EQ(predicted.sizes(), at.activation.sizes());
      EXPECT_EQ(predicted.scalar_type(), type);
      EXPECT_GT(predicted.sum().item<double>(), 0) << "it has moved towards the gradient";
    }
  }
}

TEST(SyntheticGradient, learns_the_gradient_of_each_sample_whatever_the_batch_size) {
  const torch::Tensor h = torch::randn({1, 3}, test::generator(1)), grad = torch::randn({1, 3}, test::generator(2));
  std::vector<torch::Tensor> predicted;
  for (const std::int64_t copies : {1, 8}) {
    const auto model = make_synthetic_gradient({.width = 8}, 1, 0);
    const AtCut at{0, h.repeat({copies, 1}), torch::zeros({copies}, torch::kInt64)};
    for (int t = 0; t < 20; ++t) model->learn(at, grad.repeat({copies, 1}) / copies);
    predicted.push_back(model->predict(at)[0] * copies);
  }
  EXPECT_TRUE(torch::allclose(predicted[0], predicted[1], 1e-3, 1e-5));
  EXPECT_GT(predicted[0].abs().sum().item<double>(), 0);
}

}  // namespace paper_dni_test
}  // namespace rubato
