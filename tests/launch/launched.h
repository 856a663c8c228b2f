#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <fstream>
#include <functional>
#include <set>
#include <sstream>
#include <string>
#include <thread>

#include "launch/job_file.h"
#include "rubato/core/error.h"
#include "rubato/launch/launcher.h"
#include "support/temporary_directory.h"

namespace rubato::test {

/// Whether `condition` comes true in a time in which it certainly does if ever.
inline bool eventually(const std::function<bool()>& condition) {
  for (const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(60); std::chrono::steady_clock::now() < end;) {
    if (condition()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return condition();
}

/// A folder with a script that all processes of a job run, and the launcher in a process of its own.
class LaunchTest : public ::testing::Test {
 protected:
  LaunchTest() {
    options.arguments = {"train", "--run-dir", run().string()};
    options.command = folder() / "script";
  }
  /// Nothing that a test started stays behind, whatever happened in it.
  ~LaunchTest() override {
    if (launcher_ > 0) kill(launcher_, SIGKILL), waitpid(launcher_, nullptr, 0);
    for (const pid_t pid : all_processes()) kill(pid, SIGKILL);
  }

  const std::filesystem::path& folder() const { return temporary_.path(); }
  std::filesystem::path run() const { return folder() / "run"; }
  std::filesystem::path file(const std::string& name) const { return folder() / name; }
  bool exists(const std::string& name) const { return std::filesystem::exists(file(name)); }
  std::string text(const std::string& name) const {
    std::stringstream content;
    content << std::ifstream(file(name)).rdbuf();
    return content.str();
  }
  std::set<std::string> lines(const std::string& name) const {
    std::istringstream input(text(name));
    std::set<std::string> all;
    for (std::string line; std::getline(input, line);) all.insert(line);
    return all;
  }
  void touch(const std::string& name) const { std::ofstream(file(name)) << ""; }

  /// `coordinator` and `worker`: commands of a shell in the test's folder; `await FILE` waits for a file, `me` is a name for the
  /// process that no other has, `pid.$me` holds its number.
  void script(const std::string& coordinator, const std::string& worker) const {
    program("script", "cd '" + folder().string() +
                          "'\n"
                          "await() { while [ ! -e \"$1\" ]; do sleep 0.01; done; }\n"
                          "me=$RUBATO_ROLE.$RANK.$RUBATO_INCARNATION\n"
                          "echo $$ > draft.$me && mv draft.$me pid.$me\n"
                          "if [ $RUBATO_ROLE = coordinator ]; then\n:\n" +
                          coordinator + "\nelse\n:\n" + worker + "\nfi\n");
  }
  void program(const std::string& name, const std::string& body) const {
    std::ofstream(file(name)) << "#!/bin/sh\n" + body;
    std::filesystem::permissions(file(name), std::filesystem::perms::owner_all);
  }

  /// The launcher in a process of its own; its streams go to the files "out" and "err".
  void begin(const std::function<int()>& launcher) {
    launcher_ = fork();
    if (launcher_ != 0) return;
    for (const auto& [name, number] : {std::pair{"out", STDOUT_FILENO}, std::pair{"err", STDERR_FILENO}}) {
      dup2(open(file(name).c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644), number);
    }
    try {
      _exit(launcher());
    } catch (const Error& error) {
      std::fprintf(stderr, "%s\n", error.what());
      _exit(static_cast<int>(error.code()));
    }
  }
  void begin() {
    begin([this] { return launch(options); });
  }
  /// Its exit code; -signal when one ended it, -1000 when it does not end.
  int end() {
    int status = 0;
    if (!eventually([&] { return waitpid(launcher_, &status, WNOHANG) == launcher_; })) return -1000;
    launcher_ = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }
  int run_to_end() {
    begin();
    return end();
  }
  void signal_launcher(int number) const { kill(launcher_, number); }

  bool appears(const std::string& name) const {
    return eventually([&] { return exists(name); });
  }
  /// Of a process that said its number.
  pid_t pid_of(const std::string& me) const { return appears("pid." + me) ? std::stoi(text("pid." + me)) : 0; }
  /// Never a group of processes, whatever the file said.
  void kill_process(const std::string& me) const {
    const pid_t pid = pid_of(me);
    ASSERT_GT(pid, 1) << me;
    kill(pid, SIGKILL);
  }
  bool lives(const std::string& me) const { return start_time_of(pid_of(me)).has_value(); }
  ProcessRecord record(std::size_t index) const { return read_job(run()).processes.at(index); }

  LaunchOptions options;

 private:
  std::set<pid_t> all_processes() const {
    std::set<pid_t> all;
    for (const auto& entry : std::filesystem::directory_iterator(folder())) {
      const std::string name = entry.path().filename().string();
      const pid_t pid = name.starts_with("pid.") ? std::stoi(text(name)) : 0;
      if (pid > 1 && start_time_of(pid)) all.insert(pid);
    }
    return all;
  }

  TemporaryDirectory temporary_;
  pid_t launcher_ = 0;
};

}  // namespace rubato::test
