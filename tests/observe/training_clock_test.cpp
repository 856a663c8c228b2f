// What speeds are measured by: the time in which somebody trained.
#include "rubato/observe/training_clock.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "rubato/io/files.h"
#include "rubato/train/trainer.h"
#include "support/small_mnist.h"
#include "support/temporary_directory.h"

namespace rubato {
namespace train_training_clock_test {

using namespace std::chrono_literals;

TEST(TrainingClock, counts_between_start_and_stop) {
  TrainingClock clock;
  std::this_thread::sleep_for(5ms);
  EXPECT_EQ(clock.seconds(), 0);
  clock.start();
  clock.start();
  std::this_thread::sleep_for(5ms);
  const double running = clock.seconds();
  EXPECT_GE(running, 0.005);
  clock.stop();
  const double stopped = clock.seconds();
  EXPECT_GE(stopped, running);
  std::this_thread::sleep_for(5ms);
  EXPECT_EQ(clock.seconds(), stopped);
}

/// Stands for a test that takes long, and looks at the clock meanwhile.
class SlowTest final : public TrainListener {
 public:
  void note(const std::string&) override {}
  void tested(double, double, const Evaluation&, double) override {
    const double before = trainer->training_seconds();
    std::this_thread::sleep_for(100ms);
    EXPECT_EQ(trainer->training_seconds(), before) << "counts on while a test runs";
    ++tests;
  }
  Trainer* trainer = nullptr;
  int tests = 0;
};

TEST(TrainingClock, stands_still_in_tests_for_every_figure) {
  const test::TemporaryDirectory folder;
  const auto data = folder.path() / "data", run = folder.path() / "run";
  std::filesystem::create_directory(data);
  test::write_small_mnist(data);
  TrainOptions options;
  options.data = "mnist";
  options.data_dir = data.string();
  options.model = "mlp";
  options.width = 16;
  options.batch_size = 10;
  options.steps = 250;
  options.evaluate_every = 25;
  options.target_loss = 1e6;  // reached by the first window
  options.run_dir = run.string();
  SlowTest listener;
  Trainer trainer(make_plan(options), &listener);
  listener.trainer = &trainer;
  const auto begin = std::chrono::steady_clock::now();
  trainer.run();
  const std::chrono::duration<double> wall = std::chrono::steady_clock::now() - begin;
  ASSERT_GE(listener.tests, 10);
  const double of_tests = 0.1 * listener.tests, most = wall.count() - of_tests;
  const auto summary = nlohmann::json::parse(trainer.summary());
  EXPECT_LE(summary["seconds"].get<double>(), most);
  EXPECT_LE(trainer.training_seconds(), most);
  EXPECT_GE(summary["samples_per_second"].get<double>(), 2500 / most);
  EXPECT_LE(summary["seconds_to_loss"].get<double>(), most);
  std::istringstream lines(read_file(run / "metrics.jsonl"));
  double time = 0, seconds = 0;
  for (std::string line; std::getline(lines, line);) {
    const auto json = nlohmann::json::parse(line);
    if (!json.contains("time")) continue;
    time = json["time"];
    seconds += 500 / json["samples_per_second"].get<double>();  // of a window of 50 batches, two tests in most
  }
  EXPECT_GT(time, 0);
  EXPECT_LE(time, most);
  EXPECT_LE(seconds, most);
}

}  // namespace train_training_clock_test
}  // namespace rubato
