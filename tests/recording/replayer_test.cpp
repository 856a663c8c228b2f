// What was recorded under random delays is replayed to the same bits, on threads and in the simulator.
#include "rubato/recording/replayer.h"

#include <cstdint>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "rubato/recording/recorder.h"
#include "support/herd.h"
#include "support/temporary_directory.h"

namespace rubato {
namespace recording_replayer_test {

using ::testing::AllOf;
using ::testing::HasSubstr;

struct Case {
  const char* name;
  ScheduleOptions schedule;
  CouplingOptions coupling;
  int seeds;
};

void PrintTo(const Case& row, std::ostream* out) {
  *out << row.name;
}

const ScheduleOptions hogwild_4{.name = "hogwild", .values = {{"workers", 4}}};
const ScheduleOptions pd_asgd_2_2{.name = "pd-asgd", .values = {{"forward-threads", 2}, {"backward-threads", 2}}};

std::vector<Case> cases() {
  const CouplingOptions elastic{.name = "async-easgd", .replicas = 2, .period = 2, .values = {{"moving-rate", 0.3}}};
  std::vector<Case> all = {
      {"hogwild_alone", hogwild_4, {}, 10},
      {"hogwild_in_async_easgd", hogwild_4, elastic, 100},
      {"pd_asgd_alone", pd_asgd_2_2, {}, 10},
      {"pd_asgd_in_async_easgd", pd_asgd_2_2, elastic, 100},
      {"lpp_in_lap", {.name = "lpp", .values = {{"workers", 3}}}, {.name = "lap", .replicas = 3, .period = 2}, 10},
      {"hogwild_in_downpour", hogwild_4, {.name = "downpour", .replicas = 2, .period = 2}, 20},
      {"ddg_in_mvadownpour", {.name = "ddg", .cuts = {1}}, {.name = "mvadownpour", .replicas = 2}, 10},
      {"serial_in_mdownpour", {}, {.name = "mdownpour", .replicas = 3}, 10}};
  Case eamsgd{"hogwild_in_eamsgd", hogwild_4, elastic, 10};
  eamsgd.coupling.name = "eamsgd";
  all.push_back(eamsgd);
  return all;
}

class ReplayerTest : public ::testing::TestWithParam<Case> {
 protected:
  static constexpr int half = 5;

  static test::Herd herd(const Case& row) {
    StoreOptions store = test::sgd(0.05, 0.9, 0);
    store.optimizer.nesterov = row.coupling.name == "eamsgd";
    return {test::small_model("mlp"), {.schedule = row.schedule, .coupling = row.coupling, .store = store}};
  }
  /// Two segments under random delays; returns the digest.
  std::string record(std::uint64_t seed, bool simulated = false) {
    test::Herd running = herd(GetParam());
    Recorder recorder(file);
    RuntimeOptions options{.seed = seed, .order = &recorder};
    running.job.open(0, half);
    for (const Role& role : running.job.roles()) options.delays.push_back({role.name, 0, 0.4});
    const auto runtime = simulated ? make_simulator({.hosts = 3}, options) : make_thread_runtime(options);
    for (const int begin : {0, half}) {
      recorder.begin_segment(begin);
      running.run(*runtime, begin, begin + half);
      recorder.end_segment(begin + half);
    }
    recorder.finish(running.job.digest());
    return running.job.digest();
  }
  std::string replay(bool simulated) {
    test::Herd running = herd(GetParam());
    Replayer replayer(load_recording(file));
    const RuntimeOptions options{.order = &replayer};
    const auto runtime = simulated ? make_simulator({.hosts = 3}, options) : make_thread_runtime(options);
    for (std::size_t i = 0; i < replayer.recording().segments.size(); ++i) {
      replayer.begin_segment(i);
      running.run(*runtime, replayer.recording().segments[i].begin, replayer.recording().segments[i].end);
      replayer.end_segment();
    }
    return running.job.digest();
  }

  test::TemporaryDirectory folder;
  std::filesystem::path file = folder.path() / "recording.rec";
};

TEST_P(ReplayerTest, reaches_the_recorded_digest_for_every_seed) {
  std::set<std::string> digests;
  for (int seed = 1; seed <= GetParam().seeds; ++seed) {
    const std::string recorded = record(static_cast<std::uint64_t>(seed));
    ASSERT_EQ(replay(false), recorded) << "seed " << seed;
    if (seed % 10 == 0 && test::has_simulator()) {
      ASSERT_EQ(replay(true), recorded) << "seed " << seed << " in the simulator";
    }
    digests.insert(recorded);
  }
  EXPECT_GT(digests.size(), 1u) << "timing made no difference: there was nothing to replay";
}

TEST_P(ReplayerTest, a_simulated_run_is_replayed_on_threads) {
  if (!test::has_simulator()) return;
  const std::string recorded = record(1, true);
  EXPECT_EQ(replay(false), recorded);
}

INSTANTIATE_TEST_SUITE_P(All, ReplayerTest, ::testing::ValuesIn(cases()), [](const auto& info) { return info.param.name; });

/// A recording of two roles that publish block 0 in turn, and runs against it.
class Replaying : public ::testing::Test {
 protected:
  static constexpr EventKind kind = EventKind::publish;

  void SetUp() override {
    Recorder recorder(file);
    recorder.begin_segment(0);
    for (int i = 0; i < 4; ++i) {
      Event event{.kind = kind, .block = 0, .version = i, .batch = i, .of = "r0", .checksum = 1};
      recorder.act(i % 2 == 0 ? "a" : "b", event, [] {});
    }
    recorder.end_segment(4);
    recorder.finish("");
  }
  Role role(const std::string& name, int events, std::uint64_t checksum = 1, EventKind what = kind) {
    return {.name = name, .run = [=, this](Context& me) {
              for (int i = 0; i < events; ++i) {
                Event event{.kind = what, .block = 0, .of = "r0", .checksum = checksum};
                me.ordered(event, [&] {
                  event.version = event.batch = published;
                  order += name;
                  ++published;
                });
              }
            }};
  }
  std::string sentence(const std::vector<Role>& roles) {
    Replayer replayer(load_recording(file));
    replayer.begin_segment(0);
    try {
      make_thread_runtime({.order = &replayer})->run(roles);
      replayer.end_segment();
    } catch (const std::exception& error) {
      return error.what();
    }
    return "";
  }

  test::TemporaryDirectory folder;
  std::filesystem::path file = folder.path() / "recording.rec";
  std::string order;
  std::int64_t published = 0;
};

TEST_F(Replaying, roles_take_turns_as_recorded) {
  EXPECT_EQ(sentence({role("b", 2), role("a", 2)}), "");
  EXPECT_EQ(order, "abab");
}

TEST_F(Replaying, other_values_are_named_with_block_and_step) {
  EXPECT_THAT(sentence({role("a", 2), role("b", 2, 5)}),
              AllOf(HasSubstr("other values"), HasSubstr("b: publish block 0 of r0, version 1, step 1")));
}

TEST_F(Replaying, another_act_is_named) {
  EXPECT_THAT(sentence({role("a", 2), role("b", 2, 1, EventKind::read)}),
              HasSubstr("'b: read block 0 of r0' instead of 'b: publish block 0 of r0, version 1, step 1'"));
}

TEST_F(Replaying, an_act_too_many_is_named) {
  EXPECT_THAT(sentence({role("a", 3), role("b", 2)}), HasSubstr("of which the recording knows nothing more"));
}

TEST_F(Replaying, an_act_that_nobody_does_is_named) {
  EXPECT_THAT(sentence({role("a", 2), role("b", 1)}), HasSubstr("nobody did 'b: publish block 0 of r0, version 3, step 3'"));
}

TEST_F(Replaying, a_role_that_is_missing_is_named) {
  EXPECT_THAT(sentence({role("a", 2)}),
              HasSubstr("a waits for its turn: 'b: publish block 0 of r0, version 1, step 1' comes first"));
}

}  // namespace recording_replayer_test
}  // namespace rubato
