#include "rubato/compare/runner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>

#include "rubato/core/error.h"
#include "support/temporary_directory.h"

namespace rubato {
namespace compare_runner_test {

class Runner : public ::testing::Test {
 protected:
  /// Runs three trials, two at a time, each of which does what `body` says.
  void run(const std::string& body) {
    const auto program = folder_.path() / "program";
    std::ofstream(program) << "#!/bin/sh\n" + body;
    std::filesystem::permissions(program, std::filesystem::perms::owner_all);
    std::vector<Trial> trials;
    for (int i = 0; i < 3; ++i) trials.push_back({.method = "m" + std::to_string(i)});
    run_trials(
        "train", trials,
        {.program = program.string(), .folder = folder_.path(), .jobs = 2, .ended = [this](auto, auto, auto&, auto, auto&) {
           ++ended_;
         }});
  }
  test::TemporaryDirectory folder_;
  int ended_ = 0;
};

/// A child of the caller's own that ends meanwhile: its end belongs to the caller.
TEST_F(Runner, waits_for_its_own_processes_alone) {
  const pid_t stranger = fork();
  if (stranger == 0) _exit(42);
  siginfo_t info{};
  ASSERT_EQ(waitid(P_PID, static_cast<id_t>(stranger), &info, WEXITED | WNOWAIT), 0);  // it has ended
  run("sleep 0.05\n");
  EXPECT_EQ(ended_, 3);
  int status = 0;
  ASSERT_EQ(waitpid(stranger, &status, 0), stranger) << "taken by another";
  EXPECT_EQ(WEXITSTATUS(status), 42);
}

TEST_F(Runner, says_which_run_has_failed_and_what_it_said) {
  try {
    run("echo some words; echo the reason >&2; exit 3\n");
    ADD_FAILURE() << "nothing is said";
  } catch (const DataError& error) {
    EXPECT_THAT(error.what(), ::testing::HasSubstr("failed: the reason"));
  }
}

/// Then the system forgets how children end; nobody shall wait for ever.
TEST_F(Runner, does_not_wait_for_what_nobody_will_tell) {
  struct sigaction ignore {
  }, before{};
  ignore.sa_handler = SIG_IGN;
  sigaction(SIGCHLD, &ignore, &before);
  EXPECT_THROW(run("exit 0\n"), DataError);
  sigaction(SIGCHLD, &before, nullptr);
}

}  // namespace compare_runner_test
}  // namespace rubato
