#include "launch/job_file.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <nlohmann/json.hpp>

#include "launch/process_command.h"
#include "launch/run_folder.h"
#include "rubato/core/error.h"
#include "support/temporary_directory.h"

namespace fs = std::filesystem;

namespace rubato {
namespace launch_job_file_test {

JobRecord some_job() {
  JobRecord job{.listen = "10.0.0.1",
                .port = 4000,
                .launcher = 12,
                .launcher_start_time = 345,
                .command = "/bin/rubato",
                .arguments = {"train", "--model", "it's \"new\""},
                .folder = "/home/me",
                .ssh = "ssh -p 22"};
  job.processes = {{.name = "coordinator", .rank = -1, .host = "localhost", .pid = 13, .start_time = 346, .started = 1.5},
                   {.name = "worker-0", .rank = 0, .host = "far", .pid = 14, .incarnation = 2, .exited = Ending{.signal = 9}},
                   {.name = "worker-1", .rank = 1, .host = "far", .exited = Ending{.code = 3}},
                   {.name = "worker-2", .rank = 2, .host = "localhost", .exited = Ending{}}};
  return job;
}

TEST(JobFile, survives_being_written_and_read) {
  const test::TemporaryDirectory folder;
  write_job(folder.path(), some_job());
  EXPECT_EQ(read_job(folder.path()), some_job());
  struct stat status {};
  ASSERT_EQ(stat((folder.path() / job_file).c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600u);
  EXPECT_EQ(std::distance(fs::directory_iterator(folder.path()), fs::directory_iterator()), 1) << "a draft was left";
}

TEST(JobFile, has_the_keys_that_others_read) {
  const auto json = nlohmann::json::parse(to_json(some_job()));
  EXPECT_EQ(json["endpoint"], "tcp://10.0.0.1:4000");
  EXPECT_EQ(json["launcher"]["pid"], 12);
  EXPECT_TRUE(json["processes"][0]["exited"].is_null());
  EXPECT_EQ(json["processes"][1]["exited"], "signal 9");
  EXPECT_EQ(json["processes"][2]["exited"], "exit 3");
}

TEST(JobFile, is_refused_when_it_is_none) {
  auto reordered = nlohmann::json::parse(to_json(some_job()));
  std::swap(reordered["processes"][0], reordered["processes"][1]);
  for (const std::string& text : {std::string("{}"), std::string("[1"), std::string(), reordered.dump()}) {
    EXPECT_THROW(job_from_json(text, "job.json"), DataError) << text;
  }
  EXPECT_THROW(read_job("/does/not/exist"), DataError);
}

TEST(JobFile, is_refused_in_words_of_its_own) {
  auto without_port = nlohmann::json::parse(to_json(some_job()));
  without_port["endpoint"] = "zz";
  for (const std::string& text : {std::string("{}"), std::string("[1"), std::string("[]"), without_port.dump()}) {
    try {
      job_from_json(text, "job.json");
      ADD_FAILURE() << text;
    } catch (const DataError& error) {
      const std::string sentence = error.what();
      EXPECT_EQ(sentence.find("json.exception"), std::string::npos) << sentence;
      EXPECT_EQ(sentence.find("stoi"), std::string::npos) << sentence;
    }
  }
}

TEST(JobFile, says_why_it_cannot_be_written) {
  const test::TemporaryDirectory folder;
  const pid_t child = fork();
  if (child == 0) {
    signal(SIGXFSZ, SIG_IGN);
    const rlimit small{100, 100};
    setrlimit(RLIMIT_FSIZE, &small);
    try {
      write_job(folder.path(), some_job());
    } catch (const DataError& error) {
      _exit(std::string_view(error.what()).ends_with("File too large") ? 3 : 4);
    }
    _exit(0);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(WEXITSTATUS(status), 3);
}

double now() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

TEST(JobFile, takes_the_end_of_a_run_from_its_summary) {
  const test::TemporaryDirectory folder;
  const auto code = [&](const std::string& summary, double started) {
    std::ofstream(folder.path() / "summary.json") << summary;
    return exit_code_of_run(folder.path(), started);
  };
  const double before = now();
  EXPECT_EQ(exit_code_of_run(folder.path(), before), std::nullopt);
  EXPECT_EQ(code(R"({"status": "done"})", before), 0);
  EXPECT_EQ(code(R"({"status": "interrupted"})", before), 130);
  EXPECT_EQ(code(R"({"status": "diverged"})", before), 4);
  EXPECT_EQ(code(R"({"status": "done"})", now() + 10), std::nullopt) << "of an earlier run in the same folder";
  EXPECT_EQ(code(R"({"sta)", before), std::nullopt);
}

TEST(RunFolder, is_the_one_that_the_arguments_name) {
  const test::TemporaryDirectory folder;
  const std::string named = (folder.path() / "a/b").string();
  for (std::vector<std::string> arguments : {std::vector<std::string>{"train", "--run-dir", "x", "--run-dir", named},
                                             {"train", "--run-dir=" + named},
                                             {"train", "--resume", named}}) {
    const std::vector<std::string> before = arguments;
    EXPECT_EQ(agree_on_run_folder(arguments), named);
    EXPECT_EQ(arguments, before);
    EXPECT_TRUE(fs::is_directory(named));
  }
  std::vector<std::string> missing = {"train", "--resume", named + "/none"};
  EXPECT_THROW(agree_on_run_folder(missing), DataError);
  EXPECT_FALSE(fs::exists(named + "/none"));
}

TEST(RunFolder, is_new_each_time_when_none_is_named) {
  const test::TemporaryDirectory folder;
  std::vector<std::string> one = {"train"}, two = {"train"};
  EXPECT_NE(agree_on_run_folder(one, folder.path()), agree_on_run_folder(two, folder.path()));
  ASSERT_EQ(one.size(), 3u);
  EXPECT_EQ(one[1], "--run-dir");
  EXPECT_TRUE(fs::is_directory(one[2]));
}

TEST(Ending, survives_as_text) {
  for (const Ending& ending : {Ending{.code = 0}, Ending{.code = 75}, Ending{.signal = 9}, Ending{}}) {
    EXPECT_EQ(ending_from_text(to_text(ending)), ending);
  }
}

TEST(ProcessCommand, quotes_for_the_shell) {
  EXPECT_EQ(shell_quoted("a b"), "'a b'");
  EXPECT_EQ(shell_quoted("it's"), R"('it'\''s')");
  EXPECT_EQ(shell_quoted(""), "''");
}

TEST(ProcessCommand, replaces_what_the_environment_said) {
  const Command coordinator =
      command_of(some_job(), 0, "runs/a", {"RANK=7", "PATH=/bin", "TORCHELASTIC_RUN_ID=1", "RUBATO_ROLE=worker"});
  const auto has = [&](const std::string& entry) {
    return std::count(coordinator.environment.begin(), coordinator.environment.end(), entry) == 1;
  };
  EXPECT_TRUE(has("RANK=-1"));
  EXPECT_TRUE(has("RUBATO_ROLE=coordinator"));
  EXPECT_TRUE(has("PATH=/bin"));
  EXPECT_TRUE(has("RUBATO_KEYS=/home/me/runs/a/keys"));
  EXPECT_FALSE(has("RANK=7"));
  EXPECT_FALSE(has("RUBATO_ROLE=worker"));
  EXPECT_FALSE(has("TORCHELASTIC_RUN_ID=1"));
  EXPECT_EQ(coordinator.input, "");
  EXPECT_EQ(coordinator.arguments, (std::vector<std::string>{"/bin/rubato", "train", "--model", "it's \"new\""}));
}

/// The coordinator evaluates on all processors beside its workers.
TEST(ProcessCommand, lets_waiting_threads_sleep_unless_told_otherwise) {
  const auto policy = [](const std::vector<std::string>& inherited) {
    std::vector<std::string> found;
    for (const std::string& entry : command_of(some_job(), 0, "runs/a", inherited).environment) {
      if (entry.starts_with("OMP_WAIT_POLICY=")) found.push_back(entry);
    }
    return found;
  };
  EXPECT_EQ(policy({"PATH=/bin"}), std::vector<std::string>{"OMP_WAIT_POLICY=passive"});
  EXPECT_EQ(policy({"OMP_WAIT_POLICY=active"}), std::vector<std::string>{"OMP_WAIT_POLICY=active"});
}

}  // namespace launch_job_file_test
}  // namespace rubato
