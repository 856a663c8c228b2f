#include <gtest/gtest.h>

#include "launch/launched.h"

namespace rubato::test {
namespace launch_attach_test {

/// Jobs whose launcher is killed.
class Attach : public LaunchTest {
 protected:
  /// All processes run; then their launcher does no more.
  void lose_launcher() {
    begin();
    for (const char* me : {"coordinator.-1.0", "worker.0.0", "worker.1.0"}) ASSERT_GT(pid_of(me), 0) << me;
    ASSERT_TRUE(eventually([&] { return record(2).pid == pid_of("worker.1.0"); }));
    signal_launcher(SIGKILL);
    ASSERT_EQ(end(), -SIGKILL);
    std::filesystem::remove(file("err"));
  }
  void begin_again() {
    LaunchOptions again;
    again.attach = run();
    begin([again] { return launch(again); });
  }
  bool said(const std::string& part) {
    return eventually([&] { return text("err").find(part) != std::string::npos; });
  }
};

constexpr const char* end_as_told = "await over; echo \"{\\\"status\\\": \\\"$(cat over)\\\"}\" > run/summary.json; exit 9";

TEST_F(Attach, goes_on_with_processes_that_outlived_their_launcher) {
  script(end_as_told, "if [ $RUBATO_INCARNATION = 1 ]; then touch again; fi; await run/summary.json");
  ASSERT_NO_FATAL_FAILURE(lose_launcher());
  for (const char* me : {"coordinator.-1.0", "worker.0.0", "worker.1.0"}) EXPECT_TRUE(lives(me)) << me;
  begin_again();
  ASSERT_TRUE(said("coordinator still runs") && said("worker-1 still runs"));
  kill_process("worker.1.0");
  ASSERT_TRUE(appears("again"));
  EXPECT_EQ(text("pid.worker.1.1").empty(), false);
  EXPECT_FALSE(exists("pid.worker.0.1"));
  std::ofstream(file("draft")) << "done";
  std::filesystem::rename(file("draft"), file("over"));
  EXPECT_EQ(end(), 0) << "exit codes of processes of another launcher come from summary.json";
  EXPECT_EQ(record(0).exited, Ending{.code = 0});
}

TEST_F(Attach, is_possible_after_the_processes_printed_into_the_void) {
  script("await speak; echo nobody reads this; touch spoke; await over; exit 0", "");
  ASSERT_NO_FATAL_FAILURE(lose_launcher());
  touch("speak");
  EXPECT_TRUE(appears("spoke"));
  EXPECT_TRUE(lives("coordinator.-1.0")) << "the closed pipe ended it";
  touch("over");
}

TEST_F(Attach, passes_signals_to_processes_of_the_earlier_launcher) {
  script("trap 'echo \"{\\\"status\\\": \\\"interrupted\\\"}\" > run/summary.json; exit 130' TERM; touch ready; await never",
         "await run/summary.json");
  ASSERT_NO_FATAL_FAILURE(lose_launcher());
  ASSERT_TRUE(appears("ready"));
  begin_again();
  ASSERT_TRUE(said("coordinator still runs"));
  signal_launcher(SIGTERM);
  EXPECT_EQ(end(), 130);
}

TEST_F(Attach, starts_again_what_ended_while_nobody_watched) {
  script("[ $RUBATO_INCARNATION = 1 ] && exit 8; await never", "await pid.coordinator.-1.1");
  ASSERT_NO_FATAL_FAILURE(lose_launcher());
  kill_process("coordinator.-1.0");
  ASSERT_TRUE(eventually([&] { return !lives("coordinator.-1.0"); }));
  begin_again();
  EXPECT_EQ(end(), 8);
}

TEST_F(Attach, knows_a_job_that_ended_while_nobody_watched) {
  script(end_as_told, "await run/summary.json");
  ASSERT_NO_FATAL_FAILURE(lose_launcher());
  std::ofstream(file("draft")) << "diverged";
  std::filesystem::rename(file("draft"), file("over"));
  for (const char* me : {"coordinator.-1.0", "worker.0.0", "worker.1.0"}) {
    ASSERT_TRUE(eventually([&] { return !lives(me); })) << me;
  }
  begin_again();
  EXPECT_EQ(end(), 4);
  EXPECT_FALSE(exists("pid.coordinator.-1.1") || exists("pid.worker.0.1"));
}

TEST_F(Attach, takes_no_stranger_for_a_process_of_the_job) {
  script("[ $RUBATO_INCARNATION = 1 ] && exit 0; await never", "await pid.coordinator.-1.1");
  ASSERT_NO_FATAL_FAILURE(lose_launcher());
  JobRecord job = read_job(run());
  job.processes[0].start_time += 1;  // the number belongs to another process by now
  write_job(run(), job);
  begin_again();
  EXPECT_EQ(end(), 0);
  EXPECT_TRUE(lives("coordinator.-1.0")) << "a process of somebody else was ended";
}

TEST_F(Attach, is_refused_while_another_launcher_watches) {
  script("await over", "");
  begin();
  ASSERT_TRUE(appears("run/job.json"));
  LaunchOptions again;
  again.attach = run();
  EXPECT_THROW(launch(again), UsageError);
  touch("over");
  EXPECT_EQ(end(), 0);
}

TEST_F(Attach, is_what_a_folder_with_running_processes_is_for) {
  script("await over", "");
  ASSERT_NO_FATAL_FAILURE(lose_launcher());
  try {
    launch(options);
    ADD_FAILURE() << "a second job was started in the same folder";
  } catch (const UsageError& error) {
    EXPECT_NE(std::string(error.what()).find("--attach"), std::string::npos);
  }
  touch("over");
}

TEST_F(Attach, needs_a_job) {
  options.arguments.clear();
  options.attach = file("nothing");
  EXPECT_THROW(launch(options), DataError);
}

}  // namespace launch_attach_test
}  // namespace rubato::test
