#include "app/command.h"

#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>
#include <fstream>
#include <sstream>
#include <thread>

#include "support/temporary_directory.h"

namespace fs = std::filesystem;

namespace rubato::test {
namespace {

using Clock = std::chrono::steady_clock;

[[noreturn]] void become_command(const std::vector<std::string>& arguments, const fs::path& out, const fs::path& err,
                                 const fs::path& folder, const Conditions& conditions) {
  const auto restrict = [](int what, std::int64_t most) {
    const rlimit limit{static_cast<rlim_t>(most), static_cast<rlim_t>(most)};
    if (most >= 0) setrlimit(static_cast<decltype(RLIMIT_AS)>(what), &limit);
  };
  restrict(RLIMIT_FSIZE, conditions.file_size_limit);
  restrict(RLIMIT_AS, conditions.memory_limit);
  for (const auto& [name, value] : conditions.environment) setenv(name.c_str(), value.c_str(), 1);
  dup2(open(out.c_str(), O_WRONLY | O_CREAT, 0600), STDOUT_FILENO);
  dup2(open(err.c_str(), O_WRONLY | O_CREAT, 0600), STDERR_FILENO);
  std::vector<char*> words = {const_cast<char*>("rubato")};
  for (const std::string& argument : arguments) words.push_back(const_cast<char*>(argument.c_str()));
  words.push_back(nullptr);
  if (chdir(folder.c_str()) != 0) _exit(127);
  if (conditions.without_folder && rmdir(folder.c_str()) != 0) _exit(127);
  constexpr id_t nobody = 65534;
  if (conditions.nobody && geteuid() == 0 && (setgroups(0, nullptr) != 0 || setgid(nobody) != 0 || setuid(nobody) != 0))
    _exit(127);
  restrict(RLIMIT_NPROC, conditions.process_limit);
  execv(RUBATO_COMMAND, words.data());
  _exit(127);
}

/// Two signals of a kind are one, if the first has not been taken yet.
bool is_pending(pid_t child, int signal) {
  std::ifstream status("/proc/" + std::to_string(child) + "/status");
  for (std::string line; std::getline(status, line);) {
    if (!line.starts_with("SigPnd:") && !line.starts_with("ShdPnd:")) continue;
    if ((std::stoull(line.substr(7), nullptr, 16) >> (signal - 1) & 1) != 0) return true;
  }
  return false;
}

void send_signals(pid_t child, const Conditions& conditions) {
  std::this_thread::sleep_for(conditions.signal_after);
  for (int i = 0; i < conditions.signals; ++i) {
    if (i > 0) std::this_thread::sleep_for(std::chrono::milliseconds(50));
    while (i > 0 && is_pending(child, conditions.signal)) std::this_thread::sleep_for(std::chrono::milliseconds(10));
    kill(child, conditions.signal);
  }
}

int wait_for(pid_t child, const Conditions& conditions) {
  const auto deadline = Clock::now() + std::chrono::minutes(2);
  bool signalled = conditions.signal == 0;
  int status = 0;
  while (waitpid(child, &status, WNOHANG) == 0) {
    if (!signalled && fs::exists(conditions.signal_when)) {
      send_signals(child, conditions);
      signalled = true;
    }
    if (Clock::now() > deadline) kill(child, SIGKILL);
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

}  // namespace

Outcome rubato_command(const std::vector<std::string>& arguments, const Conditions& conditions) {
  const TemporaryDirectory scratch;
  const fs::path out = scratch.path() / "out", err = scratch.path() / "err", folder = scratch.path() / "cwd";
  fs::create_directory(folder);
  fs::permissions(scratch.path(), fs::perms::others_exec, fs::perm_options::add);
  fs::permissions(folder, fs::perms::all);
  const pid_t child = fork();
  if (child == 0) become_command(arguments, out, err, folder, conditions);
  Outcome outcome{.exit_code = wait_for(child, conditions)};
  outcome.out = content_of(out);
  outcome.err = content_of(err);
  if (fs::exists(folder) && !fs::is_empty(folder) && outcome.exit_code == 2)
    outcome.err += "(left something in the working directory)\n";
  return outcome;
}

std::string json_value(const std::string& json, const std::string& key) {
  const std::string quoted = "\"" + key + "\": ";
  const std::size_t found = json.find(quoted);
  if (found == std::string::npos) return "";
  const std::size_t begin = found + quoted.size(), end = json.find_first_of(",\n}", begin);
  const std::string value = json.substr(begin, end - begin);
  return value.starts_with('"') ? value.substr(1, value.size() - 2) : value;
}

std::string content_of(const fs::path& file) {
  std::ostringstream text;
  text << std::ifstream(file, std::ios::binary).rdbuf();
  return text.str();
}

std::vector<std::string> small_run(const fs::path& data, const fs::path& run, const std::vector<std::string>& more) {
  std::vector<std::string> arguments = {"train", "--model",      "mlp", "--width",       "16",      "--data",
                                        "mnist", "--data-dir",   data,  "--run-dir",     run,       "--lr",
                                        "0.05",  "--batch-size", "16",  "--lr-schedule", "constant"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return arguments;
}

}  // namespace rubato::test
