#include "launch/child.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <fstream>
#include <sstream>

#include "rubato/core/error.h"
#include "rubato/core/numbers.h"
#include "rubato/launch/job_code.h"

namespace rubato {
namespace {

// Not from <sys/pidfd.h>: glibc 2.36 declares them for C alone.
int open_handle(pid_t pid) {
  return static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
}

bool exists(int handle) {
  return syscall(SYS_pidfd_send_signal, handle, 0, nullptr, 0) == 0;
}

struct Pipe {
  Descriptor read, write;
};

Pipe make_pipe() {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) throw DataError(fmt::format("cannot make a pipe: {}", std::strerror(errno)));
  return {Descriptor(ends[0]), Descriptor(ends[1])};
}

std::vector<char*> pointers(const std::vector<std::string>& texts) {
  std::vector<char*> all;
  for (const std::string& text : texts) all.push_back(const_cast<char*>(text.c_str()));
  all.push_back(nullptr);
  return all;
}

/// Attributes and files of posix_spawn.
class Spawn {
 public:
  Spawn() {
    posix_spawnattr_init(&attributes_);
    posix_spawn_file_actions_init(&files_);
    // In a session of its own: Linux hangs up on a group with a stopped process when its last parent in the session dies.
    posix_spawnattr_setflags(&attributes_, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    sigset_t signals;
    sigemptyset(&signals);
    posix_spawnattr_setsigmask(&attributes_, &signals);
    for (const int number : {SIGINT, SIGTERM, SIGCHLD}) sigaddset(&signals, number);
    posix_spawnattr_setsigdefault(&attributes_, &signals);
  }
  ~Spawn() {
    posix_spawn_file_actions_destroy(&files_);
    posix_spawnattr_destroy(&attributes_);
  }
  Spawn(const Spawn&) = delete;
  Spawn& operator=(const Spawn&) = delete;

  void stream(int number, const Descriptor& source) { posix_spawn_file_actions_adddup2(&files_, source.number(), number); }
  pid_t run(const Command& command) {
    if (!command.folder.empty()) posix_spawn_file_actions_addchdir_np(&files_, command.folder.c_str());
    const std::vector<char*> arguments = pointers(command.arguments), environment = pointers(command.environment);
    pid_t pid = 0;
    const int failure = posix_spawnp(&pid, arguments.front(), &files_, &attributes_, arguments.data(), environment.data());
    if (failure == 0) return pid;
    throw DataError(fmt::format("{} cannot be started: {}", command.arguments.front(), std::strerror(failure)));
  }

 private:
  posix_spawnattr_t attributes_;
  posix_spawn_file_actions_t files_;
};

/// Where a process reads `text`. The pipe takes it at once: it is far shorter than a pipe holds.
Descriptor input_of(const std::string& text) {
  if (text.empty()) return Descriptor(open("/dev/null", O_RDONLY | O_CLOEXEC));
  Pipe pipe = make_pipe();
  if (::write(pipe.write.number(), text.data(), text.size()) != static_cast<ssize_t>(text.size())) {
    throw DataError(fmt::format("cannot write to a pipe: {}", std::strerror(errno)));
  }
  return std::move(pipe.read);
}

}  // namespace

std::string to_text(const Ending& ending) {
  if (ending.code) return fmt::format("exit {}", *ending.code);
  if (ending.signal) return fmt::format("signal {}", *ending.signal);
  return "unknown";
}

Ending ending_from_text(const std::string& text) {
  const auto number = [&](std::string_view kind) -> std::optional<int> {
    if (!text.starts_with(kind)) return std::nullopt;
    const std::optional<long long> value = whole_number(std::string_view(text).substr(kind.size()));
    if (!value) return std::nullopt;
    return static_cast<int>(*value);
  };
  return {.code = number("exit "), .signal = number("signal ")};
}

Child Child::start(const Command& command) {
  Pipe output = make_pipe(), errors = make_pipe();
  const Descriptor input = input_of(command.input);
  Spawn spawn;
  spawn.stream(STDIN_FILENO, input);
  spawn.stream(STDOUT_FILENO, output.write);
  spawn.stream(STDERR_FILENO, errors.write);
  Child child;
  child.pid_ = spawn.run(command);
  child.handle_ = Descriptor(open_handle(child.pid_));
  if (!child.handle_.open()) {
    kill(-child.pid_, SIGKILL);
    throw DataError(fmt::format("cannot watch a process (pidfd_open): {}", std::strerror(errno)));
  }
  child.start_time_ = start_time_of(child.pid_).value_or(0);  // 0: it has ended already
  for (const Pipe* pipe : {&output, &errors}) fcntl(pipe->read.number(), F_SETFL, O_NONBLOCK);
  child.output = std::move(output.read);
  child.errors = std::move(errors.read);
  return child;
}

std::optional<Child> Child::adopt(pid_t pid, long long start_time) {
  Child child;
  child.pid_ = pid;
  child.start_time_ = start_time;
  child.adopted_ = true;
  // The handle first: from then on the number cannot come to mean another process unnoticed.
  child.handle_ = Descriptor(pid > 0 ? open_handle(pid) : -1);
  if (!child.handle_.open() || start_time_of(pid) != start_time) return std::nullopt;
  return child;
}

Ending Child::ending() {
  if (adopted_) return {};
  siginfo_t info{};
  if (waitid(P_PIDFD, static_cast<id_t>(handle_.number()), &info, WEXITED) != 0) return {};
  if (info.si_code == CLD_EXITED) return {.code = info.si_status};
  return {.signal = info.si_status};
}

void Child::signal(int number) const {
  // The handle says whether the number still means this process.
  if (exists(handle_.number())) kill(-pid_, number);
}

void Child::tell_job_code(int code) const {
  siginfo_t told{};
  told.si_signo = SIGTERM;
  told.si_code = SI_QUEUE;
  told.si_pid = getpid();
  told.si_uid = getuid();
  told.si_value.sival_int = value_of_job_code(code);
  syscall(SYS_pidfd_send_signal, handle_.number(), SIGTERM, &told, 0);
}

std::optional<long long> start_time_of(pid_t pid) {
  std::ifstream file(fmt::format("/proc/{}/stat", pid));
  std::string line;
  if (!std::getline(file, line)) return std::nullopt;
  const std::size_t name_end = line.rfind(')');  // the name may hold blanks and brackets itself
  if (name_end == std::string::npos) return std::nullopt;
  std::istringstream fields(line.substr(name_end + 1));
  std::string state, field;
  fields >> state;
  for (int i = 4; i <= 22; ++i) fields >> field;
  if (!fields || state == "Z" || state == "X") return std::nullopt;
  return whole_number(field);
}

}  // namespace rubato
