// What cannot go on is refused with one sentence, by every process of the job, and the run folder is as it was.
#include <cstdint>
#include <fstream>
#include <map>
#include <sstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "app/background.h"
#include "app/command.h"
#include "support/temporary_directory.h"

namespace rubato::test {
namespace app_resume_refusal_test {

using namespace std::chrono_literals;
using ::testing::HasSubstr;
using Words = std::vector<std::string>;
namespace fs = std::filesystem;

/// Every file of `folder` with what it holds, and every folder.
std::map<std::string, std::string> everything_in(const fs::path& folder) {
  std::map<std::string, std::string> all;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    all[entry.path().lexically_relative(folder).string()] = entry.is_regular_file() ? content_of(entry.path()) : "";
  }
  return all;
}

class Refusal : public ::testing::Test {
 protected:
  void SetUp() override {
    for (const auto& [name, seed] : std::map<std::string, std::uint64_t>{{"data", 0}, {"other", 5}}) {
      fs::create_directory(folder.path() / name);
      write_small_mnist(folder.path() / name, seed);
    }
  }
  std::string path(const std::string& name) const { return (folder.path() / name).string(); }
  Words train(const Words& more) const { return small_run(path("data"), path("run"), more); }
  static Words launched(int workers, const Words& command, const Words& flags = {}) {
    Words words = {"launch", "-n", std::to_string(workers)};
    words.insert(words.end(), flags.begin(), flags.end());
    words.push_back("--");
    words.insert(words.end(), command.begin(), command.end());
    return words;
  }
  Words resume(const Words& more = {}) const {
    Words words = {"train", "--resume", path("run")};
    words.insert(words.end(), more.begin(), more.end());
    return words;
  }
  static void ends_well(const Words& words) {
    const Outcome outcome = rubato_command(words);
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  }
  /// `words` end with `code` and `sentence`, soon, and change nothing in the run folder.
  void is_refused(const Words& words, int code, const std::string& sentence) const {
    const auto before = everything_in(path("run"));
    const auto begin = std::chrono::steady_clock::now();
    const Outcome outcome = rubato_command(words);
    EXPECT_EQ(outcome.exit_code, code) << outcome.err;
    EXPECT_THAT(outcome.err, HasSubstr(sentence));
    EXPECT_LT(std::chrono::steady_clock::now() - begin, 28s) << "somebody waited who had nothing to wait for";
    for (std::istringstream lines(outcome.err); lines;) {  // nobody dies of something else
      std::string line;
      std::getline(lines, line);
      const auto exit = line.find(" ended (exit ");
      EXPECT_TRUE(exit == std::string::npos || line.substr(exit) == " ended (exit " + std::to_string(code) + ")") << line;
    }
    const auto after = everything_in(path("run"));
    for (const auto& [name, content] : after) {
      EXPECT_TRUE(before.contains(name)) << sentence << ": " << name << " is new";
      EXPECT_TRUE(!before.contains(name) || before.at(name) == content) << sentence << ": " << name << " was written";
    }
    EXPECT_EQ(before.size(), after.size()) << sentence;
  }

  TemporaryDirectory folder;
};

TEST_F(Refusal, in_one_process) {
  ends_well(train({"--steps", "4", "--quiet"}));
  is_refused(resume({"--data-dir", path("other"), "--steps", "8"}), 3, "the data are not those that the run was trained with");
  is_refused(resume({"--lr", "0.2"}), 2, "--lr differs from its config.toml");
  is_refused(resume({"--replicas", "2"}), 2, "--replicas");
  is_refused(resume({"--epochs", "2", "--steps", "9"}), 2, "--epochs and --steps both");
  std::string config = content_of(path("run") + "/config.toml");
  config.replace(config.find("lr = 0.05"), 9, "lr = 0.06");
  std::ofstream(path("run") + "/config.toml") << config;
  is_refused(resume(), 2, "'lr' is not what the run was trained with");
}

TEST_F(Refusal, without_an_intact_checkpoint) {
  ends_well(train({"--steps", "4", "--quiet"}));
  for (const auto& entry : fs::recursive_directory_iterator(path("run") + "/checkpoint")) {
    if (entry.path().filename() == "state.pt") std::ofstream(entry.path()) << "damaged";
  }
  is_refused(resume(), 3, "there is no complete checkpoint in it");
}

/// A copy may lack the files whose names begin with a dot.
TEST_F(Refusal, makes_no_lock_where_there_is_none) {
  ends_well(train({"--steps", "4", "--quiet"}));
  fs::remove(path("run") + "/.lock");
  is_refused(resume({"--data-dir", path("other")}), 3, "the data are not those");
  ends_well(resume({"--steps", "5", "--quiet"}));
}

TEST_F(Refusal, of_a_folder_that_another_process_writes) {
  const Background first(train({"--steps", "10000000", "--evaluate-every", "-1"}), folder.path() / "log");
  ASSERT_TRUE(eventually([&] { return fs::exists(path("run") + "/checkpoint/latest"); }));
  const auto lock = content_of(path("run") + "/.lock");
  const Outcome second = rubato_command(resume());
  EXPECT_EQ(second.exit_code, 2);
  EXPECT_THAT(second.err, HasSubstr("is being written by another run (process " + lock.substr(0, lock.size() - 1) + ")"));
  EXPECT_EQ(content_of(path("run") + "/.lock"), lock);
}

TEST_F(Refusal, admm_with_another_number_of_replicas) {
  ends_well(launched(3, train({"--coupling", "admm", "--steps", "4", "--quiet"}), {"--quiet"}));
  const std::string sentence = "admm goes on with the number of replicas that the checkpoint has";
  is_refused(launched(2, resume({"--epochs", "4"})), 2, sentence);
  is_refused(launched(4, resume({"--epochs", "4"}), {"--quiet"}), 2, sentence);
  is_refused(launched(3, resume({"--data-dir", path("other")})), 3, "the data are not those");
  is_refused(launched(3, resume({"--when-worker-dies", "continue"})), 2, "--when-worker-dies continue needs whole replicas");
  ends_well(launched(3, resume({"--steps", "6", "--quiet"}), {"--quiet"}));
}

/// The launcher's own files as well: what it has written is taken back.
TEST_F(Refusal, of_a_job) {
  ends_well(train({"--coupling", "async-easgd", "--replicas", "2", "--steps", "4", "--quiet"}));
  EXPECT_FALSE(fs::exists(path("run") + "/job.json"));
  is_refused(launched(2, resume({"--data-dir", path("other")})), 3, "the data are not those");
  is_refused(launched(2, resume({"--lr", "0.2"}), {"--quiet"}), 2, "--lr differs");
  is_refused(launched(2, resume({"--metrics", "nowhere"})), 2, "--metrics 'nowhere' is not ADDRESS:PORT");
  ends_well(launched(2, resume({"--steps", "6", "--quiet"}), {"--quiet"}));
  EXPECT_TRUE(fs::exists(path("run") + "/job.json"));
  is_refused(launched(2, resume({"--data-dir", path("other")})), 3, "the data are not those");
}

/// So that the same command, mended, is not told that there is a run already.
TEST_F(Refusal, of_a_new_run_leaves_no_folder) {
  for (const Words& words : {train({"--coupling", "admm", "--replicas", "1"}),
                             launched(2, train({"--coupling", "admm", "--when-worker-dies", "continue"})),
                             launched(2, train({"--coupling", "easgd", "--metrics", "nowhere"})),
                             launched(2, train({"--coupling", "easgd", "--lr", "-1"}))}) {
    const Outcome outcome = rubato_command(words);
    EXPECT_EQ(outcome.exit_code, 2) << outcome.err;
    EXPECT_FALSE(fs::exists(path("run"))) << outcome.err;
  }
}

}  // namespace app_resume_refusal_test
}  // namespace rubato::test
