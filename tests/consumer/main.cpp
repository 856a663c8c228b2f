// Trains with the methods of this folder and compares with what is computed by hand.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "level.h"
#include "rubato/extend.h"

namespace {

using namespace rubato;

int failures = 0;

void expect(bool true_, const std::string& what) {
  if (!true_) ++failures;
  std::printf("%s - %s\n", true_ ? "ok" : "not ok", what.c_str());
}

void expect_near(const std::vector<double>& found, const std::vector<double>& expected, const std::string& what) {
  bool same = found.size() == expected.size();
  for (std::size_t i = 0; same && i < found.size(); ++i) same = std::abs(found[i] - expected[i]) < 1e-9;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    std::printf("  w of replica %zu: %.12f, by hand %.12f\n", i, i < found.size() ? found[i] : NAN, expected[i]);
  }
  expect(same, what);
}

std::string refusal(const std::function<void()>& call) {
  try {
    call();
  } catch (const std::exception& error) {
    return error.what();
  }
  return "";
}

void expect_refusal(const std::function<void()>& call, const std::string& part) {
  const std::string sentence = refusal(call);
  expect(sentence.find(part) != std::string::npos, "refused: " + sentence);
}

constexpr double rate = 0.1;

TrainOptions level_options(const std::filesystem::path& run, std::int64_t steps) {
  TrainOptions options;
  options.data = "points";
  options.model = "level";
  options.batch_size = 4;
  options.steps = steps;
  options.lr = rate;
  options.lr_schedule = "constant";
  options.momentum = 0;
  options.weight_decay = 0;
  options.quiet = true;
  options.run_dir = run.string();
  return options;
}

/// A finished run: what it was, and the weight of each replica. The folder is free again.
struct Trained {
  Plan plan;
  std::vector<double> weights;
};

Trained run(const TrainOptions& options) {
  const std::unique_ptr<Trainer> trainer = train(options);
  std::vector<double> weights;
  for (int replica = 0; replica < trainer->job().replicas(); ++replica) {
    weights.push_back(trainer->job().store(replica).result(0).parameters->tensors.front().item<double>());
  }
  return {trainer->plan(), weights};
}

/// The mean label of batch `step` of `replica`.
double mean_label(const Plan& plan, int replica, std::int64_t step) {
  const JobParts parts = plan.job();
  const auto index = static_cast<std::size_t>(replica);
  const Shard shard = parts.shards.empty() ? Shard{} : parts.shards.at(index);
  return parts.batches.at(index)->make(step * shard.count + shard.index).target.to(torch::kFloat64).mean().item<double>();
}

/// What `accumulate` and `follow` do, without them. `accumulate` 1 is plain descent; `period` 0: nobody follows.
std::vector<double> by_hand(const Plan& plan, std::int64_t steps, std::int64_t accumulate, std::int64_t period, double follow) {
  std::vector<double> w(static_cast<std::size_t>(plan.options.replicas), plan.options.values.get<double>("level-start"));
  std::vector<double> sum(w.size());
  for (std::int64_t step = 0; step < steps; ++step) {
    for (std::size_t i = 0; i < w.size(); ++i) {
      sum[i] += w[i] - mean_label(plan, static_cast<int>(i), step);
      if ((step + 1) % accumulate != 0) continue;
      w[i] -= rate * sum[i] / static_cast<double>(accumulate);
      sum[i] = 0;
    }
    for (std::size_t i = 1; period > 0 && (step + 1) % period == 0 && i < w.size(); ++i) w[i] += follow * (w[0] - w[i]);
  }
  return w;
}

void check_lists() {
  for (const auto& [kind, name] : {std::pair{"schedules", "accumulate"},
                                   {"couplings", "follow"},
                                   {"models", "level"},
                                   {"datasets", "points"},
                                   {"optimizers", "amsgrad"}}) {
    bool found = false;
    for (const Listed& line : catalogue(kind)) found = found || line.name == name;
    expect(found, std::string(name) + " is listed among the " + kind);
  }
  expect_refusal([] { find_schedule("acumulate"); }, "did you mean 'accumulate'?");
  expect_refusal([] { register_schedule({.name = "ddg"}); }, "there is one of this name already");
}

void check_refusals(const std::filesystem::path& folder) {
  const auto with = [&](const std::string& schedule, const std::string& coupling, const OptionValues& values) {
    return [=] {
      TrainOptions options = level_options(folder / "refused", 1);
      options.schedule = schedule;
      options.coupling = coupling;
      options.values = values;
      resolve(options);
    };
  };
  expect_refusal(with("ddg", "none", {{"accumulate", 8}}), "--accumulate is for --schedule accumulate, not for ddg");
  expect_refusal(with("serial", "easgd", {{"follow-rate", 0.1}}), "--follow-rate is for --coupling follow, not for easgd");
  expect_refusal(with("accumulate", "none", {{"accumulate", 0}}), "--accumulate 0 must be a whole number between 1 and");
  expect_refusal(with("accumulate", "none", {{"accumulate", "many"}}), "--accumulate must be a whole number");
  expect_refusal(with("serial", "follow", {{"follow-rate", 0}}), "--follow-rate 0 ties nothing");
  expect_refusal(with("accumulate", "allreduce", {}), "needs a gradient of every block in every step");
  TrainOptions width = level_options(folder / "refused", 1);
  width.width = 8;
  expect_refusal([=] { resolve(width); }, "--width is for --model");
}

void check_accumulate(const std::filesystem::path& folder) {
  TrainOptions options = level_options(folder / "accumulate", 11);
  options.schedule = "accumulate";
  options.values = {{"accumulate", 4}, {"level-start", 7.5}};
  const Trained first = run(options);
  expect_near(first.weights, by_hand(first.plan, 11, 4, 0, 0), "accumulation as by hand");

  options.run_dir.clear();
  options.resume = (folder / "accumulate").string();
  options.steps = 20;
  const Trained resumed = run(options);
  expect_near(resumed.weights, by_hand(resumed.plan, 20, 4, 0, 0), "and resumed in the middle of a step");
  options.values.set("accumulate", 2);
  options.steps = 24;
  expect_refusal([&] { run(options); }, "'accumulate' is not what the run was trained with");

  const std::string text = to_toml(first.plan.options);
  expect(
      text.find("[schedule]\nname = 'accumulate'\n") != std::string::npos && text.find("\naccumulate = 4\n") != std::string::npos,
      "its configuration has a table of its schedule");
  expect(from_toml(text, "config.toml") == first.plan.options, "which is read again");
}

void check_follow(const std::filesystem::path& folder) {
  TrainOptions options = level_options(folder / "follow", 13);
  options.coupling = "follow";
  options.replicas = 3;
  options.period = 3;
  options.values = {{"follow-rate", 0.25}};
  const Trained alone = run(options);
  expect_near(alone.weights, by_hand(alone.plan, 13, 1, 3, 0.25), "following as by hand");
  options.schedule = "accumulate";
  options.values.set("accumulate", 2);
  options.run_dir = (folder / "both").string();
  const Trained both = run(options);
  expect_near(both.weights, by_hand(both.plan, 13, 2, 3, 0.25), "and with accumulation in each replica");
}

void check_optimizer(const std::filesystem::path& folder) {
  TrainOptions options = level_options(folder / "amsgrad", 200);
  options.optimizer = "amsgrad";
  options.momentum.reset();
  options.lr.reset();
  options.values = {{"beta2", 0.99}};
  const Trained trained = run(options);
  expect(*trained.plan.options.lr == 0.05, "an optimizer of one's own has a learning rate of its own");
  const double mean = trained.plan.data->train.targets.to(torch::kFloat64).mean().item<double>();
  expect(std::abs(trained.weights.front() - mean) < 0.6, "and learns");
}

/// Comes last: nothing can be said on the command line after it.
void check_clash(const std::filesystem::path& folder) {
  register_model({.name = "clash", .summary = "", .make = {}, .options = {{.name = "epochs", .usual = 1, .help = ""}}});
  expect_refusal([&] { resolve(level_options(folder / "refused", 1)); },
                 "model 'clash' has an option 'epochs', which there is already for all runs");
}

}  // namespace

int main(int, char** argv) {
  prepare_process();
  register_level();
  const std::filesystem::path folder = argv[1];
  check_lists();
  check_refusals(folder);
  check_accumulate(folder);
  check_follow(folder);
  check_optimizer(folder);
  check_clash(folder);
  return failures == 0 ? 0 : 1;
}
