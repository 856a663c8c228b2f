// A resumed run is the same run: weights, clocks, figures; or it is refused before anything is written.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "rubato/checkpoint/checkpoint.h"
#include "rubato/core/error.h"
#include "rubato/couplings/coupling.h"
#include "rubato/io/files.h"
#include "rubato/model/model.h"
#include "rubato/schedules/schedule.h"
#include "rubato/train/trainer.h"
#include "support/lab.h"
#include "support/small_mnist.h"
#include "support/temporary_directory.h"

namespace rubato {
namespace train_resume_test {

namespace fs = std::filesystem;
using Json = nlohmann::json;

/// Stops the run at the first test.
class StopAtFirstTest final : public TrainListener {
 public:
  void note(const std::string& sentence) override { notes.push_back(sentence); }
  void tested(double, double, const Evaluation&, double) override {
    if (trainer != nullptr) std::exchange(trainer, nullptr)->request_stop();
  }
  Trainer* trainer = nullptr;
  std::vector<std::string> notes;
};

class Resume : public ::testing::Test {
 protected:
  /// Summary of "run", which ends where 30 % are reached, well before 500 steps.
  Json train_to_a_target() {
    TrainOptions o = options("serial", "none", "run");
    o.steps = 500;
    o.lr_schedule = "constant";
    o.lr_step_epochs = TrainOptions{}.lr_step_epochs;
    o.lr_step_factor = TrainOptions{}.lr_step_factor;
    o.target_accuracy = 30;
    return train(o);
  }
  void SetUp() override {
    fs::create_directory(data());
    test::write_small_mnist(data());
  }
  fs::path data() const { return folder_.path() / "data"; }
  fs::path run(const std::string& name) const { return folder_.path() / name; }

  /// 14 steps of each replica, tests every 5, a rate that falls on the way.
  TrainOptions options(const std::string& schedule, const std::string& coupling, const std::string& name) const {
    TrainOptions o;
    o.data = "mnist";
    o.data_dir = data().string();
    o.model = "mlp";
    o.width = 16;
    o.batch_size = 8;
    o.lr = 0.02;
    o.momentum = find_coupling(coupling).whole_steps ? 0 : 0.5;
    o.lr_schedule = "step";
    o.lr_step_epochs = 0.2;
    o.lr_step_factor = 0.5;
    o.schedule = schedule;
    o.coupling = coupling;
    if (find_schedule(schedule).uses_cuts) o.cuts = "1";
    if (find_coupling(coupling).default_period > 0) o.period = 3;
    o.steps = 14;
    o.evaluate_every = 5;
    o.quiet = true;
    o.run_dir = run(name).string();
    return o;
  }
  static Json train(const TrainOptions& options, StopAtFirstTest* stop = nullptr, const RuntimeChoice& runtime = {}) {
    Trainer trainer(make_plan(options, runtime), stop);
    if (stop != nullptr) stop->trainer = &trainer;
    trainer.run();
    return Json::parse(trainer.summary());
  }
  /// As `rubato train --resume` makes them.
  TrainOptions resumed(const std::string& name) const {
    const fs::path file = run(name) / "config.toml";
    TrainOptions o = from_toml(read_file(file), file.string());
    o.resume = run(name).string();
    o.run_dir.clear();
    return o;
  }
  Json summary(const std::string& name) const { return Json::parse(read_file(run(name) / "summary.json")); }
  std::string metrics(const std::string& name) const { return read_file(run(name) / "metrics.jsonl"); }

  test::TemporaryDirectory folder_;
};

/// Numbers of every line but times and speeds.
std::vector<Json> plain_lines(const std::string& metrics) {
  std::vector<Json> lines;
  std::istringstream text(metrics);
  for (std::string line; std::getline(text, line);) {
    Json json = Json::parse(line);
    for (const char* key : {"time", "seconds", "samples_per_second"}) json.erase(key);
    lines.push_back(std::move(json));
  }
  return lines;
}

/// Whether the bits of a run are fixed by its method, whatever the timing.
bool is_fixed(const TrainOptions& options) {
  return find_schedule(options.schedule).fixed_protocol && find_coupling(options.coupling).fixed_protocol;
}

class EveryPair : public Resume {
 protected:
  /// Calls `check` with the options of every schedule with every coupling that go together.
  template <class Check>
  void for_each(const Check& check) {
    int tried = 0;
    for (const ScheduleEntry& schedule : schedules()) {
      for (const CouplingEntry& coupling : couplings()) {
        const TrainOptions o = options(schedule.name, coupling.name, schedule.name + "-" + coupling.name);
        try {
          resolve(o);
        } catch (const UsageError&) {
          continue;  // the two do not go together
        }
        ++tried;
        SCOPED_TRACE(schedule.name + " with " + coupling.name);
        check(o);
        fs::remove_all(run("whole"));
        fs::remove_all(run("parts"));
      }
    }
    EXPECT_GT(tried, 80);
  }
  struct Both {
    Json whole, parts;
  };
  /// A run that is left alone and one that is interrupted at its first test.
  Both run_both(TrainOptions o, const RuntimeChoice& runtime = {}) {
    o.run_dir = run("whole").string();
    Both both{.whole = train(o, nullptr, runtime), .parts = {}};
    o.run_dir = run("parts").string();
    StopAtFirstTest stop;
    const Json first = train(o, &stop, runtime);
    EXPECT_EQ(first["status"], "interrupted");
    EXPECT_LT(first["steps"].get<int>(), 14);
    both.parts = train(resumed("parts"), nullptr, runtime);
    EXPECT_EQ(both.parts["status"], "done");
    for (const char* key : {"steps", "epochs"}) EXPECT_EQ(both.parts[key], both.whole[key]) << key;
    return both;
  }
  void expect_the_same_bits(const Both& both) {
    for (const char* key : {"weights_digest", "train_loss", "last_train_loss", "test_loss", "test_accuracy", "staleness"}) {
      EXPECT_EQ(both.parts[key], both.whole[key]) << key;
    }
    EXPECT_EQ(plain_lines(metrics("parts")), plain_lines(metrics("whole")));
  }
};

TEST_F(EveryPair, goes_on_where_it_was_interrupted) {
  for_each([&](const TrainOptions& o) {
    const Both both = run_both(o);
    if (is_fixed(o)) return expect_the_same_bits(both);
    for (const char* key : {"train_loss", "last_train_loss", "test_loss"}) {
      EXPECT_TRUE(both.parts[key].is_number() && std::isfinite(both.parts[key].get<double>())) << key;
    }
  });
}

/// Asynchronous methods in virtual time, which is the same every time: what threads cannot be asked. Roles begin a segment in
/// another order after a resume, so the bits are others.
TEST_F(EveryPair, goes_on_in_virtual_time_where_it_was_interrupted) {
  if (!test::has_simulator()) GTEST_SKIP() << "built without SimGrid";
  for_each([&](const TrainOptions& o) {
    if (is_fixed(o)) return;
    const RuntimeChoice simulator{.simulated = true, .platform = {.platform = "uniform:8"}, .block_costs = "1ms:2ms"};
    const auto [whole, parts] = run_both(o, simulator);
    for (const char* key : {"train_loss", "test_loss"}) EXPECT_NEAR(parts[key], whole[key], 0.02) << key;
  });
}

/// A meter has a window of 50 batches: the lines of metrics go on as well.
TEST_F(Resume, figures_go_on_in_the_middle_of_an_epoch) {
  TrainOptions o = options("serial", "none", "whole");
  o.steps = 130;
  o.evaluate_every = 30;
  o.target_loss = 0.5;
  train(o);
  o.run_dir = run("parts").string();
  StopAtFirstTest stop;
  train(o, &stop);
  EXPECT_EQ(summary("parts")["steps"], 25) << "the first epoch ends before batch 30";
  EXPECT_EQ(summary("parts")["test_loss"], plain_lines(metrics("parts")).back()["test_loss"]);
  train(resumed("parts"));
  EXPECT_EQ(plain_lines(metrics("parts")), plain_lines(metrics("whole")));
  EXPECT_EQ(summary("parts")["train_loss"], summary("whole")["train_loss"]);
  double before = 0;
  std::istringstream text(metrics("parts"));
  for (std::string line; std::getline(text, line);) {
    const Json json = Json::parse(line);
    if (!json.contains("time")) continue;
    EXPECT_GT(json["time"].get<double>(), before) << "the clock goes on";
    before = json["time"];
  }
  EXPECT_GT(before, 0);
}

TEST_F(Resume, a_finished_run_keeps_its_figures) {
  train(options("serial", "none", "run"));
  const Json before = summary("run");
  train(resumed("run"));
  Json after = summary("run");
  for (const auto& [key, value] : before.items()) {
    if (key != "peak_rss_bytes" && key != "host") EXPECT_EQ(after[key], value) << key;
  }
}

TEST_F(Resume, a_run_that_has_reached_its_target_is_over) {
  const Json before = train_to_a_target();
  ASSERT_LT(before["steps"].get<int>(), 500);
  const Json after = train(resumed("run"));
  for (const char* key : {"steps", "weights_digest", "test_accuracy", "seconds_to_target", "status"}) {
    EXPECT_EQ(after[key], before[key]) << key;
  }
}

TEST_F(Resume, a_run_cannot_end_before_what_it_has_taken) {
  TrainOptions o = options("serial", "none", "run");
  o.steps = 20;
  train(o);
  TrainOptions shorter = resumed("run");
  shorter.steps = 10;
  EXPECT_THROW(train(shorter), UsageError);
  EXPECT_EQ(train(resumed("run"))["steps"], 20) << "nothing was written";
}

TEST_F(Resume, a_higher_target_has_a_time_of_its_own) {
  const Json before = train_to_a_target();
  ASSERT_LT(before["steps"].get<int>(), 500);
  TrainOptions higher = resumed("run");
  higher.target_accuracy = 100;
  const Json after = train(higher);
  EXPECT_GT(after["steps"].get<int>(), before["steps"].get<int>());
  EXPECT_NE(after["seconds_to_target"], before["seconds_to_target"]);
}

TEST_F(Resume, an_interrupted_run_tells_the_test_of_its_last_weights) {
  TrainOptions o = options("serial", "none", "run");
  StopAtFirstTest stop;
  o.steps = 100;
  train(o, &stop);
  Plan plan = make_plan(o);
  load_weights(find_weights(run("run")), plan.model);
  const Evaluation test = evaluate(plan.model, WeightStore(plan.model, plan.store), plan.data->test, plan.stage);
  EXPECT_EQ(summary("run")["test_loss"].get<double>(), test.loss);
}

TEST_F(Resume, a_run_without_a_checkpoint_begins_again) {
  train(options("serial", "none", "whole"));
  TrainOptions o = options("serial", "none", "run");
  train(o);
  fs::remove_all(run("run") / "checkpoint");
  EXPECT_THROW(Trainer(make_plan(resumed("run")), nullptr), DataError);  // its figures would be lost
  fs::remove(run("run") / "summary.json");
  StopAtFirstTest notes;
  Trainer trainer(make_plan(resumed("run")), &notes);
  trainer.run();
  EXPECT_THAT(notes.notes, ::testing::ElementsAre(::testing::HasSubstr("has no checkpoint yet")));
  EXPECT_EQ(summary("run")["weights_digest"], summary("whole")["weights_digest"]);
  EXPECT_EQ(plain_lines(metrics("run")), plain_lines(metrics("whole")));
}

TEST_F(Resume, damaged_checkpoints_alone_are_refused) {
  train(options("serial", "none", "run"));
  for (const auto& entry : fs::recursive_directory_iterator(run("run") / "checkpoint")) {
    if (entry.path().filename() == "state.pt") std::ofstream(entry.path()) << "damaged";
  }
  EXPECT_THROW(Trainer(make_plan(resumed("run")), nullptr), DataError);
}

class ResumeRefusal : public Resume {
 protected:
  void SetUp() override {
    Resume::SetUp();
    TrainOptions o = options("serial", "none", "run");
    StopAtFirstTest stop;
    train(o, &stop);
  }
  /// Every file with its content.
  std::map<std::string, std::string> content() const {
    std::map<std::string, std::string> all;
    for (const auto& entry : fs::recursive_directory_iterator(run("run"))) {
      if (entry.is_regular_file()) all[entry.path().string()] = read_file(entry.path());
    }
    return all;
  }
  template <class E>
  std::string refusal(const TrainOptions& options) {
    const auto before = content();
    std::string sentence;
    try {
      Trainer(make_plan(options), nullptr);
    } catch (const E& error) {
      sentence = error.what();
    }
    EXPECT_EQ(content(), before) << "something was written";
    return sentence;
  }
};

TEST_F(ResumeRefusal, other_images) {
  test::write_small_mnist(data(), 5);
  EXPECT_THAT(refusal<DataError>(resumed("run")), ::testing::HasSubstr("not those that the run was trained with"));
}

TEST_F(ResumeRefusal, an_edited_configuration) {
  TrainOptions o = resumed("run");
  o.lr = 0.04;
  EXPECT_THAT(refusal<UsageError>(o), ::testing::HasSubstr("'lr'"));
}

TEST_F(ResumeRefusal, a_folder_that_another_run_writes) {
  const Trainer first(make_plan(resumed("run")), nullptr);
  EXPECT_THAT(refusal<UsageError>(resumed("run")), ::testing::HasSubstr("is being written by another run"));
}

TEST(CheckpointFolder, newest_goes_by_serial_number_alone) {
  const test::TemporaryDirectory folder;
  const Model model = test::small_model("mlp");
  const WeightStore store(model, {});
  struct Nothing final : Restorable {
    void save(torch::serialize::OutputArchive& archive) const override { archive.write("x", torch::IValue(std::int64_t{1})); }
    void load(torch::serialize::InputArchive&) override {}
  } nothing;
  for (const std::int64_t step : {1000, 500, 999'999'999, 1'000'000'000, 7}) {
    CheckpointFolder(folder.path()).write({.step = step}, store, nothing, "");
    EXPECT_EQ(CheckpointFolder(folder.path()).newest()->progress.step, step);
    EXPECT_TRUE(fs::exists(folder.path() /
                           read_file(folder.path() / "latest").substr(0, read_file(folder.path() / "latest").size() - 1)));
  }
  EXPECT_EQ(CheckpointFolder(folder.path()).newest()->folder.filename(), "000005-step-7");
  for (const char* name : {"step-000000469", "000001", "000001-step-", "000001-step-3.tmp", "0-step-1", "x-step-1"}) {
    EXPECT_FALSE(CheckpointFolder::is_name(name)) << name;
  }
}

TEST(WeightStore, the_rate_follows_the_steps_of_a_run_that_is_renumbered) {
  const Model model = test::small_model("mlp");
  StoreOptions options;
  options.optimizer.learning_rate = {.base = 1, .schedule = "step", .step_every = 100, .step_factor = 0.5};
  WeightStore four(model, options);
  EXPECT_EQ(four.rate(150), 0.5);  // of four replicas
  four.renumber(150);              // two take twice as many steps for the same samples
  EXPECT_EQ(four.rate(150), 0.125);
  torch::serialize::OutputArchive archive;
  four.save(archive);
  std::stringstream bytes;
  archive.save_to(bytes);
  torch::serialize::InputArchive again;
  again.load_from(bytes);
  WeightStore loaded(model, options);
  loaded.load(again);
  EXPECT_EQ(loaded.rate(150), 0.125);
}

TEST(WeightStore, a_centre_that_steps_for_several_goes_by_the_steps_of_one) {
  StoreOptions options;
  options.optimizer.learning_rate = {.base = 1, .schedule = "step", .step_every = 100, .step_factor = 0.5};
  options.updates_per_step = 4;
  const WeightStore centre(test::small_model("mlp"), options);
  EXPECT_EQ(centre.rate(399), 1);
  EXPECT_EQ(centre.rate(400), 0.5);
}

TEST(WeightStore, a_checkpoint_that_does_not_fit_changes_nothing) {
  const Model model = test::small_model("mlp");
  WeightStore store(model, {});
  torch::serialize::OutputArchive archive;
  {
    WeightStore other(model, {});
    Bystander me;
    for (int block = 0; block < other.block_count(); ++block) {
      other.update(me, block, "test", [](const TensorSet&, std::vector<torch::Tensor>& next) {
        for (torch::Tensor& tensor : next) tensor.fill_(7);
      });
    }
    torch::serialize::OutputArchive good;
    other.save(good);
    std::stringstream bytes;
    good.save_to(bytes);
    torch::serialize::InputArchive parts;
    parts.load_from(bytes);
    for (int block = 0; block < other.block_count(); ++block) {  // the last one of another type
      torch::serialize::InputArchive part;
      parts.read(other.block_name(block), part);
      torch::serialize::OutputArchive copy(archive.compilation_unit());
      for (const std::string& key : part.keys()) {
        torch::IValue value;
        if (!part.try_read(key, value)) continue;
        if (key == "weights" && block + 1 == other.block_count()) {
          std::vector<torch::Tensor> wide;
          for (const torch::Tensor& tensor : value.toTensorVector()) wide.push_back(tensor.to(torch::kFloat64));
          value = torch::IValue(wide);
        }
        copy.write(key, value);
      }
      archive.write(other.block_name(block), copy);
    }
  }
  std::stringstream bytes;
  archive.save_to(bytes);
  torch::serialize::InputArchive bad;
  bad.load_from(bytes);
  const std::string before = store.digest();
  EXPECT_THROW(store.load(bad), DataError);
  EXPECT_EQ(store.digest(), before);
}

}  // namespace train_resume_test
}  // namespace rubato
