// The same run on threads, in processes and in virtual time.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "app/background.h"
#include "app/command.h"
#include "support/temporary_directory.h"

namespace rubato::test {
namespace app_processes_test {

using Words = std::vector<std::string>;

struct Case {
  const char* name;
  int processes;
  Words flags;
  bool simulated = false;
};

class SameDigest : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    data = folder.path() / "data";
    std::filesystem::create_directory(data);
    write_small_mnist(data);
  }
  Words words(const std::string& run, const Words& flags = {}) const {
    Words more = GetParam().flags;
    more.insert(more.end(), {"--steps", "12"});
    more.insert(more.end(), flags.begin(), flags.end());
    return small_run(data, folder.path() / run, more);
  }
  std::string digest(const std::string& run) const {
    return json_value(content_of(folder.path() / run / "summary.json"), "weights_digest");
  }
  TemporaryDirectory folder;
  std::filesystem::path data;
};

TEST_P(SameDigest, on_threads_in_processes_and_in_virtual_time) {
  const Outcome threads = rubato_command(words("threads"));
  ASSERT_EQ(threads.exit_code, 0) << threads.err;
  Words launch = {"launch", "-n", std::to_string(GetParam().processes), "--"};
  const Words train = words("processes", {"--silence", "600"});
  launch.insert(launch.end(), train.begin(), train.end());
  const Outcome processes = rubato_command(launch);
  ASSERT_EQ(processes.exit_code, 0) << processes.err << processes.out;
  EXPECT_EQ(digest("processes"), digest("threads"));
  EXPECT_NE(digest("threads"), "");
  EXPECT_EQ(json_value(content_of(folder.path() / "processes/summary.json"), "runtime"), "processes");
  if (!GetParam().simulated) return;
  Words simulate = words("simulated");
  simulate.front() = "simulate";
  simulate.insert(simulate.end(), {"--platform", "uniform:4"});
  const Outcome simulated = rubato_command(simulate);
  ASSERT_EQ(simulated.exit_code, 0) << simulated.err;
  EXPECT_EQ(digest("simulated"), digest("threads"));
}

INSTANTIATE_TEST_SUITE_P(
    Jobs, SameDigest,
    ::testing::Values(
        Case{"serial", 1, {}, true}, Case{"ddg", 2, {"--schedule", "ddg", "--stages", "2", "--cuts", "2"}, true},
        Case{"fdg", 3, {"--schedule", "fdg", "--stages", "3", "--cuts", "1,2"}},
        Case{"features_replay", 2, {"--schedule", "features-replay", "--stages", "2", "--cuts", "2"}},
        Case{"one_f_one_b", 2, {"--schedule", "1f1b", "--stages", "2", "--cuts", "2"}},
        Case{"dni", 2, {"--schedule", "dni", "--stages", "2", "--cuts", "2"}},
        Case{"easgd", 1, {"--coupling", "easgd", "--replicas", "1"}, true},
        Case{"async_easgd", 1, {"--coupling", "async-easgd", "--replicas", "1"}, true},
        Case{"eamsgd", 1, {"--coupling", "eamsgd", "--replicas", "1"}},
        Case{"downpour", 1, {"--coupling", "downpour", "--replicas", "1"}},
        Case{"mdownpour", 1, {"--coupling", "mdownpour", "--replicas", "1"}},
        Case{"allreduce", 2, {"--coupling", "allreduce", "--replicas", "2"}},
        Case{"ddg_in_easgd", 4, {"--schedule", "ddg", "--stages", "2", "--cuts", "2", "--coupling", "easgd", "--replicas", "2"}}),
    [](const auto& info) { return std::string(info.param.name); });

}  // namespace app_processes_test
}  // namespace rubato::test
