// Schedules with stages inside, couplings outside.
#include <gtest/gtest.h>

#include "rubato/job/job.h"
#include "rubato/model/model.h"
#include "support/lab.h"

namespace rubato {
namespace job_staged_job_test {

struct Case {
  const char* name;
  const char* schedule;
  const char* coupling;
  bool fixed;           ///< same bits whatever the timing
  bool equal_replicas;  ///< same weights after every step
};

void PrintTo(const Case& row, std::ostream* out) {
  *out << row.name;
}

std::vector<Case> cases() {
  return {{"features_replay_allreduce", "features-replay", "allreduce", true, true},
          {"features_replay_eamsgd", "features-replay", "eamsgd", false, false},
          {"fdg_allreduce", "fdg", "allreduce", true, true},
          {"fdg_easgd", "fdg", "easgd", true, false},
          {"fdg_async_easgd", "fdg", "async-easgd", false, false},
          {"dni_allreduce", "dni", "allreduce", true, true},
          {"dni_easgd", "dni", "easgd", true, false},
          {"dni_downpour", "dni", "downpour", false, false}};
}

struct Outcome {
  std::string digest;
  std::vector<double> losses;
  std::vector<StalenessCount> staleness;
  std::vector<torch::Tensor> first, second;  ///< parameters of the two replicas
};

class StagedJobTest : public ::testing::TestWithParam<Case> {
 protected:
  static constexpr int steps = 14, stages = 3;

  Outcome outcome() const {
    const Model model = test::small_model("mlp");
    const auto batches = std::make_shared<const BatchMaker>(test::small_images(), BatchOptions{.batch_size = 8});
    StoreOptions store = test::sgd(0.02, 0.5, 0);
    store.optimizer.nesterov = find_coupling(GetParam().coupling).look_ahead;
    test::Reports reports;
    Job job(model,
            {.schedule = {.name = GetParam().schedule, .cuts = {1, 2}},
             .coupling = {.name = GetParam().coupling, .replicas = 2, .period = 3, .values = {{"moving-rate", 0.3}}},
             .store = store,
             .batches = {batches, batches},
             .shards = {{0, 2}, {1, 2}}},
            reports);
    const auto runtime = make_thread_runtime({});
    for (const auto& [begin, end] : {std::pair{0, 5}, std::pair{5, steps}}) {
      job.open(begin, end);
      runtime->run(job.roles());
    }
    Outcome outcome{.digest = job.digest(), .losses = reports.losses()};
    Bystander me;
    for (int block = 0; block < stages; ++block) {
      outcome.staleness.push_back(job.store(0).staleness(block));
      for (const auto& tensor : job.store(0).read(me, block).parameters->tensors) outcome.first.push_back(tensor);
      for (const auto& tensor : job.store(1).read(me, block).parameters->tensors) outcome.second.push_back(tensor);
    }
    return outcome;
  }
};

TEST_P(StagedJobTest, every_replica_takes_every_step_and_keeps_its_delay) {
  const Outcome result = outcome();
  EXPECT_EQ(result.losses.size(), 2u * steps);
  const bool fdg = std::string(GetParam().schedule) == "fdg", replay = std::string(GetParam().schedule) == "features-replay";
  for (int block = 0; block < stages; ++block) {
    const int delay = (fdg ? 2 : replay ? 1 : 0) * (stages - 1 - block);
    EXPECT_EQ(result.staleness[static_cast<std::size_t>(block)].updates, steps - delay);
    EXPECT_EQ(result.staleness[static_cast<std::size_t>(block)].max, replay ? 0 : delay);
  }
}

TEST_P(StagedJobTest, is_as_repeatable_as_the_coupling) {
  const Outcome once = outcome();
  if (GetParam().fixed) {
    EXPECT_EQ(outcome().digest, once.digest);
  }
  bool equal = true;
  for (std::size_t i = 0; i < once.first.size(); ++i) equal = equal && torch::equal(once.first[i], once.second[i]);
  EXPECT_EQ(equal, GetParam().equal_replicas);
}

INSTANTIATE_TEST_SUITE_P(All, StagedJobTest, ::testing::ValuesIn(cases()), [](const auto& info) { return info.param.name; });

}  // namespace job_staged_job_test
}  // namespace rubato
