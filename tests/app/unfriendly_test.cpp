// What a system can refuse: one sentence that names the place and the reason, and the documented exit code.
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <fstream>
#include <regex>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "app/command.h"
#include "support/temporary_directory.h"

namespace rubato::test {
namespace app_unfriendly_test {

using ::testing::AnyOf;
using ::testing::HasSubstr;
using Words = std::vector<std::string>;
namespace fs = std::filesystem;

class Unfriendly : public ::testing::Test {
 protected:
  void SetUp() override {
    fs::permissions(folder.path(), fs::perms::all);  // for those without rights elsewhere
    fs::create_directory(data);
    write_small_mnist(data);
    const Outcome outcome = rubato_command(train("good", {"--record"}));
    ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
    std::ofstream(path("experiment.toml")) << "title = \"t\"\n[options]\ndata = \"mnist\"\ndata-dir = \"" + data.string() +
                                                  "\"\nmodel = \"mlp\"\nwidth = 8\nsteps = 1\n[[method]]\nname = \"a\"\n";
  }

  std::string path(const std::string& name) const { return (folder.path() / name).string(); }
  Words train(const std::string& name, const Words& more = {}) const {
    Words words = small_run(data, path(name), {"--steps", "2", "--quiet"});
    words.insert(words.end(), more.begin(), more.end());
    return words;
  }
  /// The run `new` with `flag` = `value`, in virtual time.
  Words simulate(const std::string& flag, const std::string& value) const {
    Words words = train("new", {flag, value});
    words.front() = "simulate";
    return words;
  }
  Words launched(const Words& more) const {
    Words words = {"launch", "-n", "1"};
    words.insert(words.end(), more.begin(), more.end());
    return words;
  }
  static Words with(Words words, const std::string& flag, const std::string& value) {
    words.insert(words.end(), {flag, value});
    return words;
  }
  /// `words` without the run folder that small_run names.
  static Words elsewhere(Words words, const std::string& run) {
    *(std::find(words.begin(), words.end(), "--run-dir") + 1) = run;
    return words;
  }

  /// Every argument that names a file or folder to read.
  std::vector<Words> readers(const std::string& place) const {
    return {{"train", "--resume", place},
            {"train", "--config", place},
            train("new", {"--init-from", place}),
            {"train", "--data", "mnist", "--data-dir", place, "--model", "mlp", "--steps", "1", "--run-dir", path("new")},
            {"train", "--data", "cifar10", "--data-dir", place, "--model", "resnet8", "--steps", "1", "--run-dir", path("new")},
            {"train", "--data", "text", "--data-dir", place, "--model", "lstm-char", "--steps", "1", "--run-dir", path("new")},
            {"eval", "--checkpoint", place},
            {"eval", "--checkpoint", path("good"), "--config", place},
            {"replay", place},
            {"simulate", "--from", place},
            simulate("--platform", place + ".xml"),
            simulate("--profile", place),
            {"compare", place},
            {"status", place},
            launched({"--hosts", place, "--", "train"}),
            launched({"--", "train", "--resume", place}),
            launched({"--attach", place})};
  }
  /// Every argument that names a file or folder to write.
  std::vector<Words> writers(const std::string& place) const {
    Words job = launched({"--"}), words = elsewhere(with(train(""), "--coupling", "async-easgd"), place);
    job.insert(job.end(), words.begin(), words.end());
    Words virtual_run = elsewhere(train(""), place);
    virtual_run.front() = "simulate";
    return {elsewhere(train(""), place),
            virtual_run,
            job,
            {"profile", "--model", "mlp", "--width", "8", "-o", place},
            {"compare", path("experiment.toml"), "-o", place},
            {"compare", path("experiment.toml"), "-o", path("compared"), "--publish", place},
            {"keys", place}};
  }

  /// One line, nothing that only C++ programmers understand.
  static void is_a_sentence(const Words& words, const Outcome& outcome) {
    static const std::regex raw(
        "std::|filesystem error|basic_|what\\(\\)|terminate|enforce|[Ee]xception|iostream|vector|Traceback");
    EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1) << words[0] << " " << words[1] << ": " << outcome.err;
    EXPECT_FALSE(std::regex_search(outcome.err, raw)) << outcome.err;
  }
  void is_refused(const Words& words, const std::string& place, const ::testing::Matcher<std::string>& reason) {
    const Outcome outcome = rubato_command(words, {.nobody = true});
    EXPECT_EQ(outcome.exit_code, 3) << testing::PrintToString(words) << outcome.err;
    is_a_sentence(words, outcome);
    EXPECT_THAT(outcome.err, HasSubstr(place)) << testing::PrintToString(words);
    EXPECT_THAT(outcome.err, reason) << testing::PrintToString(words);
  }

  TemporaryDirectory folder;
  const fs::path data = folder.path() / "data";
};

/// A folder that only its owner may look into, or nobody.
class Locked {
 public:
  explicit Locked(fs::path place) : place_(std::move(place)) {
    fs::create_directories(place_ / "in");
    fs::permissions(place_, geteuid() == 0 ? fs::perms::owner_all : fs::perms::none);
  }
  ~Locked() { fs::permissions(place_, fs::perms::owner_all); }
  Locked(const Locked&) = delete;
  Locked& operator=(const Locked&) = delete;

 private:
  fs::path place_;
};

TEST_F(Unfriendly, no_permission) {
  if (rubato_command({"--version"}, {.nobody = true}).exit_code != 0)
    GTEST_SKIP() << "the command lies where only its owner can start it";
  const Locked locked(path("locked"));
  for (const Words& words : readers(path("locked/in"))) is_refused(words, path("locked/in"), HasSubstr("Permission denied"));
  for (const Words& words : writers(path("locked/in"))) is_refused(words, path("locked/in"), HasSubstr("Permission denied"));
}

TEST_F(Unfriendly, a_name_that_is_too_long) {
  const std::string place = path(std::string(300, 'x'));
  for (const Words& words : readers(place)) is_refused(words, place, HasSubstr("File name too long"));
  for (const Words& words : writers(place)) is_refused(words, place, HasSubstr("File name too long"));
}

TEST_F(Unfriendly, a_file_where_a_folder_must_be) {
  std::ofstream(path("file")) << "x";
  const std::string place = path("file/in");
  const auto reason = AnyOf(HasSubstr("Not a directory"), HasSubstr("not found"), HasSubstr("holds no"),
                            HasSubstr("is not there"), HasSubstr("no such run folder"));
  for (const Words& words : readers(place)) is_refused(words, place, reason);
  for (const Words& words : writers(place)) is_refused(words, path("file"), reason);
}

/// Never taken for an empty file.
TEST_F(Unfriendly, a_folder_where_a_file_must_be) {
  fs::create_directory(path("folder"));
  fs::create_directory(path("folder.xml"));
  for (const Words& words : readers(path("folder"))) is_refused(words, path("folder"), ::testing::_);
}

TEST_F(Unfriendly, a_run_folder_that_holds_a_run_ends_the_whole_job) {
  Words words = launched({"--"});
  const Words run = train("good", {"--coupling", "async-easgd"});
  words.insert(words.end(), run.begin(), run.end());
  const auto begin = std::chrono::steady_clock::now();
  const Outcome outcome = rubato_command(words);
  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_THAT(outcome.err, HasSubstr("already holds a run"));
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(20));
}

TEST_F(Unfriendly, no_temporary_folder) {
  const Conditions conditions{.environment = {{"TMPDIR", path("gone")},
                                              {"RANK", "1"},
                                              {"WORLD_SIZE", "2"},
                                              {"MASTER_ADDR", "127.0.0.1"},
                                              {"MASTER_PORT", "29887"},
                                              {"RUBATO_ROLE", "worker"}}};
  const Words words = train("new", {"--coupling", "async-easgd"});
  const Outcome outcome = rubato_command(words, conditions);
  EXPECT_EQ(outcome.exit_code, 3);
  is_a_sentence(words, outcome);
  EXPECT_THAT(outcome.err, HasSubstr(path("gone") + " is missing: set TMPDIR"));
}

TEST_F(Unfriendly, no_working_folder) {
  for (const Words& words : {train("new"), Words{"list", "models"}, Words{"eval", "--checkpoint", path("good")},
                             launched({"--", "train"}), Words{"replay", path("good")}, Words{"--version"}}) {
    const Outcome outcome = rubato_command(words, {.without_folder = true});
    EXPECT_EQ(outcome.exit_code, 3);
    is_a_sentence({words.front(), ""}, outcome);
    EXPECT_THAT(outcome.err, HasSubstr("the working folder has been removed"));
  }
}

TEST_F(Unfriendly, no_memory) {
  const Conditions conditions{.memory_limit = std::int64_t{16} << 30};
  const auto wide = [&](const std::string& command) {
    return Words{command, "--data", "mnist", "--data-dir", data, "--model", "mlp", "--width", "65536"};
  };
  for (const Words& words : {with(wide("train"), "--run-dir", path("new")), with(wide("simulate"), "--run-dir", path("new")),
                             wide("profile"), with(wide("eval"), "--checkpoint", path("good"))}) {
    const Outcome outcome = rubato_command(words, conditions);
    EXPECT_EQ(outcome.exit_code, 1);
    is_a_sentence(words, outcome);
    EXPECT_THAT(outcome.err, HasSubstr("out of memory"));
    EXPECT_THAT(outcome.err, HasSubstr("were asked for at once"));
  }
}

TEST_F(Unfriendly, replicas_that_no_machine_has_room_for) {
  const Outcome outcome = rubato_command(train("new", {"--width", "4096", "--coupling", "easgd", "--replicas", "8000"}));
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_THAT(outcome.err, HasSubstr("out of memory: weights and gradients of 8000 replicas take"));
  EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1) << outcome.err;
  EXPECT_FALSE(fs::exists(path("new")));
}

/// Whichever thread is the first that the system does not give: nothing waits for it, and no library has the last word.
TEST_F(Unfriendly, no_threads) {
  if (rubato_command({"--version"}, {.nobody = true}).exit_code != 0)
    GTEST_SKIP() << "the command lies where only its owner can start it";
  for (int limit = 1; limit <= 9; ++limit) {
    for (const Words& words : {train("new", {"--schedule", "hogwild", "--workers", "3"}),
                               Words{"eval", "--checkpoint", path("good")}, simulate("--seed", "1")}) {
      fs::remove_all(path("new"));
      const Outcome outcome = rubato_command(words, {.nobody = true, .process_limit = limit});
      if (outcome.exit_code == 0) continue;  // they were enough
      EXPECT_EQ(outcome.exit_code, 1) << limit << outcome.err;
      is_a_sentence(words, outcome);
      EXPECT_THAT(outcome.err, HasSubstr("no more threads or processes")) << limit;
    }
  }
}

}  // namespace app_unfriendly_test
}  // namespace rubato::test
