#include "rubato/launch/launcher.h"

#include <sys/stat.h>

#include "launch/launched.h"
#include "launch/supervisor.h"
#include "rubato/transport/credentials.h"

namespace rubato::test {
namespace launch_launcher_test {

using Launcher = LaunchTest;
using Lines = std::set<std::string>;

TEST_F(Launcher, gives_each_process_its_place) {
  script("env > env.coordinator; echo \"$*\" > arguments; read line || touch no-input", "env > env.$RANK");
  ASSERT_EQ(run_to_end(), 0) << text("err");
  const JobRecord job = read_job(run());
  for (const auto& [name, rank, role] :
       {std::tuple{"env.coordinator", "-1", "coordinator"}, {"env.0", "0", "worker"}, {"env.1", "1", "worker"}}) {
    const Lines environment = lines(name);
    for (const std::string& expected :
         {std::string("RANK=") + rank, std::string("RUBATO_ROLE=") + role, std::string("WORLD_SIZE=2"),
          std::string("MASTER_ADDR=127.0.0.1"), "MASTER_PORT=" + std::to_string(job.port), std::string("RUBATO_INCARNATION=0"),
          "RUBATO_KEYS=" + (run() / "keys").string()}) {
      EXPECT_TRUE(environment.contains(expected)) << name << " lacks " << expected;
    }
  }
  EXPECT_TRUE(lines("env.1").contains("LOCAL_RANK=1"));
  EXPECT_TRUE(lines("env.1").contains("LOCAL_WORLD_SIZE=2"));
  EXPECT_EQ(text("arguments"), "train --run-dir " + run().string() + "\n");
  EXPECT_TRUE(exists("no-input"));
  EXPECT_NO_THROW(read_credentials(run() / "keys"));
}

TEST_F(Launcher, begins_each_line_with_the_name_of_its_process) {
  script("printf 'one\\ntwo'; echo wrong >&2", "echo at work; echo bad >&2");
  ASSERT_EQ(run_to_end(), 0);
  EXPECT_EQ(lines("out"), (Lines{"[coordinator] one", "[coordinator] two", "[worker-0] at work", "[worker-1] at work"}));
  EXPECT_EQ(lines("err"), (Lines{"[coordinator] wrong", "[worker-0] bad", "[worker-1] bad"}));
}

TEST_F(Launcher, passes_on_what_is_longer_than_a_pipe) {
  script("i=0; while [ $i -lt 3000 ]; do echo $i 0123456789012345678901234567890123456789; i=$((i + 1)); done", "");
  ASSERT_EQ(run_to_end(), 0);
  const Lines out = lines("out");
  EXPECT_EQ(out.size(), 3000u);
  EXPECT_TRUE(out.contains("[coordinator] 2999 0123456789012345678901234567890123456789"));
}

TEST_F(Launcher, prints_the_coordinator_alone_when_quiet) {
  options.quiet = true;
  script("echo loss 1; echo note >&2", "echo at work; echo bad >&2");
  ASSERT_EQ(run_to_end(), 0);
  EXPECT_EQ(lines("out"), (Lines{"loss 1"}));
  EXPECT_EQ(lines("err"), (Lines{"note", "[worker-0] bad", "[worker-1] bad"}));
}

TEST_F(Launcher, returns_the_coordinators_exit_code_and_leaves_ended_processes_alone) {
  script("await ended.0; await ended.1; exit 7", "touch ended.$RANK; exit 3");
  EXPECT_EQ(run_to_end(), 7);
  EXPECT_FALSE(exists("pid.worker.0.1"));
  EXPECT_EQ(record(0).exited, Ending{.code = 7});
  EXPECT_EQ(record(2).exited, Ending{.code = 3});
}

TEST_F(Launcher, starts_again_what_a_signal_ended) {
  script("await again", "if [ $RANK = 1 ]; then if [ $RUBATO_INCARNATION = 0 ]; then kill -9 $$; else touch again; fi; fi");
  EXPECT_EQ(run_to_end(), 0);
  EXPECT_TRUE(exists("pid.worker.1.1"));
  EXPECT_FALSE(exists("pid.worker.0.1"));
  EXPECT_FALSE(exists("pid.coordinator.-1.1"));
  EXPECT_EQ(record(2).incarnation, 1);
  EXPECT_NE(text("err").find("worker-1 ended (signal 9)"), std::string::npos);
}

TEST_F(Launcher, starts_the_coordinator_again) {
  script("[ $RUBATO_INCARNATION = 2 ] || kill -9 $$; exit 5", "await pid.coordinator.-1.2");
  EXPECT_EQ(run_to_end(), 5);
}

TEST_F(Launcher, starts_again_what_asks_for_it) {
  script("await again", "[ $RANK = 0 ] || exit 0; [ $RUBATO_INCARNATION = 1 ] || exit 75; touch again");
  EXPECT_EQ(run_to_end(), 0);
}

TEST_F(Launcher, gives_up_a_coordinator_that_dies_again_and_again) {
  options.restarts = 1;
  script("kill -9 $$", "await pid.coordinator.-1.1");
  EXPECT_EQ(run_to_end(), 3);
  EXPECT_FALSE(exists("pid.coordinator.-1.2"));
  EXPECT_EQ(record(0).exited, Ending{.signal = 9});
  EXPECT_NE(text("err").find("lost its coordinator"), std::string::npos);
}

TEST_F(Launcher, tells_the_coordinator_which_workers_are_gone_for_good) {
  options.restarts = 0;
  script("while ! grep -q 'signal 9' run/job.json; do sleep 0.01; done; exit 6", "[ $RANK = 1 ] || exit 0; kill -9 $$");
  EXPECT_EQ(run_to_end(), 6);
  struct stat status {};
  ASSERT_EQ(stat((run() / "job.json").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600u);
}

constexpr const char* until_told = "trap 'touch told.$me; exit 130' TERM; touch ready.$me; await never";

TEST_F(Launcher, passes_the_first_signal_to_the_coordinator_alone) {
  const std::string begun = "echo $$ > run/.lock; ";  // as the coordinator of a job that has begun
  script(begun + until_told, "await told.coordinator.-1.0; touch spared.$RANK");
  begin();
  ASSERT_TRUE(appears("ready.coordinator.-1.0"));
  ASSERT_GT(pid_of("worker.1.0"), 0);
  signal_launcher(SIGINT);
  EXPECT_EQ(end(), 130);
  EXPECT_TRUE(exists("spared.0") && exists("spared.1"));
}

TEST_F(Launcher, passes_the_second_signal_to_all_and_kills_at_the_third) {
  script("trap 'touch told.$me' TERM; touch ready.$me; await never", until_told);
  begin();
  ASSERT_TRUE(appears("ready.coordinator.-1.0") && appears("ready.worker.0.0") && appears("ready.worker.1.0"));
  signal_launcher(SIGTERM);
  ASSERT_TRUE(appears("told.coordinator.-1.0"));
  EXPECT_FALSE(exists("told.worker.0.0"));
  std::this_thread::sleep_for(Patience{}.one_wish);
  signal_launcher(SIGTERM);
  ASSERT_TRUE(appears("told.worker.0.0") && appears("told.worker.1.0"));
  EXPECT_TRUE(lives("coordinator.-1.0"));
  std::this_thread::sleep_for(Patience{}.one_wish);
  signal_launcher(SIGTERM);
  EXPECT_EQ(end(), 130);
  EXPECT_FALSE(exists("pid.coordinator.-1.1")) << "started again although the job was to end";
}

TEST_F(Launcher, starts_nothing_again_once_the_job_is_to_end) {
  options.restarts = 1000;
  script("kill -9 $$", "await never");
  begin();
  ASSERT_TRUE(eventually([&] { return text("err").find("started again") != std::string::npos; }));
  signal_launcher(SIGTERM);
  EXPECT_EQ(end(), 130);
}

/// The coordinator and one worker.
JobRecord small_job(const LaunchOptions& options) {
  JobRecord job{.listen = "127.0.0.1", .port = 1, .command = options.command, .arguments = options.arguments, .folder = "/"};
  job.processes = {{.name = "coordinator", .rank = -1, .host = "localhost"},
                   {.name = "worker-0", .rank = 0, .host = "localhost"}};
  return job;
}

/// Those that were told the end have ended by then; the others would wait for it.
TEST_F(Launcher, ends_workers_that_outlive_the_coordinator) {
  for (const int code : {0, 4}) {
    script("await ready.worker.0.0; exit " + std::to_string(code), "trap 'touch told' TERM; touch ready.$me; await never");
    std::filesystem::create_directories(run());
    begin([this, code] {
      using namespace std::chrono_literals;
      const Patience patience{
          .after_coordinator = 50ms, .after_code_told = 1500ms, .after_lost_coordinator = 10min, .after_all_told = 10min};
      const Signals signals;
      Supervisor supervisor(small_job(options), {.run = run(), .patience = patience}, signals);
      supervisor.start();
      return supervisor.run();
    });
    EXPECT_EQ(end(), code);
    EXPECT_TRUE(exists("told"));
    EXPECT_EQ(record(1).exited, Ending{.signal = 9});
    for (const char* name : {"told", "ready.worker.0.0"}) std::filesystem::remove(file(name));
  }
}

/// SIGTERM waits until a stopped process goes on.
TEST_F(Launcher, kills_a_stopped_worker_that_outlives_the_coordinator) {
  script("await ready; exit 0", "touch ready; kill -STOP $$; await never");
  std::filesystem::create_directories(run());
  begin([this] {
    using namespace std::chrono_literals;
    const Signals signals;
    Supervisor supervisor(small_job(options), {.run = run(), .patience = {.after_coordinator = 50ms, .after_code_told = 50ms}},
                          signals);
    supervisor.start();
    return supervisor.run();
  });
  EXPECT_EQ(end(), 0);
  EXPECT_EQ(record(1).exited, Ending{.signal = 9});
}

TEST_F(Launcher, undoes_a_start_that_a_signal_ends) {
  script("touch started; await never", "await never");
  begin();
  ASSERT_TRUE(appears("started") && appears("pid.worker.1.0"));
  const auto before = std::chrono::steady_clock::now();
  signal_launcher(SIGTERM);
  EXPECT_EQ(end(), 130);
  EXPECT_LT(std::chrono::steady_clock::now() - before, std::chrono::seconds(10)) << "the workers waited for a coordinator";
  EXPECT_FALSE(exists("run")) << "keys and job.json of a job that has never begun";
}

TEST_F(Launcher, passes_on_that_a_worker_was_asked_to_stop) {
  script("trap 'exit 130' TERM; touch ready; await never", "await ready; [ $RANK = 0 ] || exit 0; exit 130");
  EXPECT_EQ(run_to_end(), 130);
}

TEST_F(Launcher, signals_of_one_moment_are_one) {
  script("trap 'touch told' TERM; touch ready.$me; await told; sleep 1; exit 130",
         "trap 'touch told.$me' TERM; touch ready.$me; await told");
  begin();
  ASSERT_TRUE(appears("ready.coordinator.-1.0") && appears("ready.worker.0.0") && appears("ready.worker.1.0"));
  signal_launcher(SIGTERM);
  ASSERT_TRUE(appears("told"));
  signal_launcher(SIGINT);
  EXPECT_EQ(end(), 130);
  EXPECT_FALSE(exists("told.worker.0.0") || exists("told.worker.1.0"));
}

TEST_F(Launcher, fails_when_output_is_lost) {
  script("echo loss 1", "");
  begin([this] {
    dup2(open("/dev/full", O_WRONLY), STDOUT_FILENO);
    return launch(options);
  });
  EXPECT_EQ(end(), 3);
  EXPECT_NE(text("err").find("could not all be printed"), std::string::npos);
}

TEST_F(Launcher, says_what_cannot_be_started) {
  options.command = file("missing");
  EXPECT_EQ(run_to_end(), 3);
  EXPECT_NE(text("err").find("missing cannot be started"), std::string::npos);
  EXPECT_FALSE(exists("run")) << "of a job that has never begun";
}

TEST_F(Launcher, needs_a_command) {
  options.arguments.clear();
  EXPECT_EQ(run_to_end(), 2);
}

TEST_F(Launcher, gives_credentials_to_other_hosts_on_standard_input) {
  std::ofstream(file("hosts")) << "localhost\nfar slots=2\n";
  options.workers = 3;
  options.hosts_file = file("hosts");
  options.ssh = file("reach").string() + " -x";
  options.listen = "192.0.2.1";  // nobody's: nothing here binds to it
  options.port = 4000;
  program("reach",
          "cd '" + folder().string() + "'\n{ env; echo \"$*\"; } > seen.$$; echo \"$1 $2\" >> hosts.seen\nexec sh -c \"$3\"\n");
  script("", "env > env.$RANK; cat > input.$RANK");
  ASSERT_EQ(run_to_end(), 0) << text("err");

  const Credentials credentials = read_credentials(run() / "keys");
  EXPECT_EQ(text("hosts.seen"), "-x far\n-x far\n");
  EXPECT_EQ(text("input.0"), "");
  EXPECT_EQ(text("input.1"), to_text(credentials));
  EXPECT_EQ(text("input.2"), to_text(credentials));
  for (const char* expected : {"RUBATO_KEYS=-", "RANK=2", "LOCAL_RANK=1", "LOCAL_WORLD_SIZE=2", "MASTER_ADDR=192.0.2.1"}) {
    EXPECT_TRUE(lines("env.2").contains(expected)) << expected;
  }
  for (const char* me : {"worker.1.0", "worker.2.0"}) {
    const std::string seen = text("seen." + std::to_string(pid_of(me)));
    EXPECT_NE(seen.find("RUBATO_KEYS"), std::string::npos);
    EXPECT_EQ(seen.find(credentials.token), std::string::npos) << "where every user of the machine can read it";
  }
}

TEST_F(Launcher, starts_a_remote_worker_again_when_its_connection_breaks) {
  std::ofstream(file("hosts")) << "far slots=2\n";
  options.hosts_file = file("hosts");
  options.ssh = file("reach");
  options.listen = "192.0.2.1";
  options.port = 4000;
  program("reach", "exec sh -c \"$2\"\n");
  script("await again", "[ $RANK = 0 ] || exit 0; [ $RUBATO_INCARNATION = 1 ] || exit 255; touch again");
  EXPECT_EQ(run_to_end(), 0);
}

}  // namespace launch_launcher_test
}  // namespace rubato::test
