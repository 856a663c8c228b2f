#include "rubato/compare/runner.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <fstream>
#include <map>
#include <sstream>
#include <thread>

#include "rubato/core/error.h"

namespace fs = std::filesystem;

namespace rubato {
namespace {

using Clock = std::chrono::steady_clock;

std::string content_of(const fs::path& file) {
  std::stringstream text;
  text << std::ifstream(file).rdbuf();
  return text.str();
}

std::string last_line(const fs::path& file) {
  std::istringstream lines(content_of(file));
  std::string last;
  for (std::string line; std::getline(lines, line);) {
    if (!line.empty()) last = line;
  }
  return last;
}

/// The processes of one call of `run_trials`.
class Children {
 public:
  Children(std::string command, const RunnerOptions& options) : command_(std::move(command)), options_(options) {}
  ~Children() {
    for (const auto& [pid, child] : running_) kill(pid, SIGTERM);
    for (const auto& [pid, child] : running_) waitpid(pid, nullptr, 0);
  }
  std::size_t running() const { return running_.size(); }

  void start(const Trial& trial) {
    const fs::path run = folder_of(trial, options_.folder);
    fs::remove_all(run);
    fs::create_directories(run.parent_path());
    std::vector<std::string> arguments = arguments_of(command_, trial, run);
    std::vector<char*> argv = {const_cast<char*>(options_.program.c_str())};
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    posix_spawn_file_actions_t files;
    posix_spawn_file_actions_init(&files);
    const std::string log = log_of(run);
    posix_spawn_file_actions_addopen(&files, STDOUT_FILENO, log.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
    posix_spawn_file_actions_adddup2(&files, STDOUT_FILENO, STDERR_FILENO);
    pid_t pid = 0;
    const int failure = posix_spawn(&pid, options_.program.c_str(), &files, nullptr, argv.data(), environ);
    posix_spawn_file_actions_destroy(&files);
    if (failure != 0) throw DataError(fmt::format("{} cannot be started: {}", options_.program, std::strerror(failure)));
    running_[pid] = {&trial, Clock::now()};
  }

  /// Waits for one to end.
  struct Ended {
    const Trial* trial;
    double seconds;
    std::string note;
  };
  Ended end_one() {
    const auto [pid, status] = wait_for_one();
    const auto [trial, begin] = running_.at(pid);
    running_.erase(pid);
    const int code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    if (code == static_cast<int>(ExitCode::interrupted)) throw Interrupted{};
    const fs::path run = folder_of(*trial, options_.folder);
    const bool diverged = code == static_cast<int>(ExitCode::diverged);
    if (code != 0 && !diverged) {
      throw DataError(
          fmt::format("the run {} failed: {} (all it said is in {})", trial->name(), last_line(log_of(run)), log_of(run)));
    }
    return {trial, std::chrono::duration<double>(Clock::now() - begin).count(), diverged ? "diverged" : ""};
  }

  static std::string log_of(const fs::path& run) { return run.string() + ".log"; }

 private:
  /// Of these alone: whoever calls may have children of its own.
  std::pair<pid_t, int> wait_for_one() const {
    for (;;) {
      for (const auto& [pid, child] : running_) {
        int status = 0;
        const pid_t ended = waitpid(pid, &status, WNOHANG);
        if (ended == pid) return {pid, status};
        if (ended < 0 && errno == ECHILD) {  // who ignores SIGCHLD learns nothing of its children
          throw DataError(
              fmt::format("nobody can say how the run {} has ended: the process must not ignore SIGCHLD", child.trial->name()));
        }
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  }
  struct Child {
    const Trial* trial;
    Clock::time_point begin;
  };
  std::string command_;
  const RunnerOptions& options_;
  std::map<pid_t, Child> running_;
};

/// What a finished run was started with; a run with other flags is run again.
std::string signature(const std::string& command, const Trial& trial) {
  std::string text;
  for (const std::string& argument : arguments_of(command, trial, "RUN")) text += argument + "\n";
  return text;
}

fs::path signature_file(const Trial& trial, const RunnerOptions& options) {
  return folder_of(trial, options.folder).string() + ".flags";
}

}  // namespace

std::vector<std::string> arguments_of(const std::string& command, const Trial& trial, const fs::path& run) {
  std::vector<std::string> arguments = {command, "--quiet", "--run-dir", run.string()};
  for (const auto& [flag, values] : trial.flags) {
    if (values.empty()) arguments.push_back("--" + flag);
    for (const std::string& value : values) {
      if (value.empty()) continue;
      arguments.push_back("--" + flag);
      arguments.push_back(value);
    }
  }
  return arguments;
}

fs::path folder_of(const Trial& trial, const fs::path& folder) {
  return folder / "runs" / trial.name();
}

void run_trials(const std::string& command, const std::vector<Trial>& trials, const RunnerOptions& options) {
  Children children(command, options);
  std::size_t next = 0, done = 0;
  const auto finished = [&](const Trial& trial) {
    return fs::exists(folder_of(trial, options.folder) / "summary.json") &&
           content_of(signature_file(trial, options)) == signature(command, trial);
  };
  const auto report = [&](const Trial& trial, double seconds, const std::string& note) {
    ++done;
    if (options.ended) options.ended(done, trials.size(), trial, seconds, note);
  };
  while (next < trials.size() || children.running() > 0) {
    if (next < trials.size() && finished(trials[next])) {
      report(trials[next++], 0, "done before");
    } else if (next < trials.size() && children.running() < static_cast<std::size_t>(options.jobs)) {
      children.start(trials[next++]);
    } else {
      const auto ended = children.end_one();
      std::ofstream(signature_file(*ended.trial, options)) << signature(command, *ended.trial);
      report(*ended.trial, ended.seconds, ended.note);
    }
  }
}

}  // namespace rubato
