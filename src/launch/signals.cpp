#include "launch/signals.h"

#include <fmt/format.h>
#include <sys/eventfd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstring>

#include "rubato/core/error.h"

namespace rubato {
namespace {

std::atomic<int> counter{-1};

void on_signal(int) {
  const int saved = errno;
  const std::uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(counter, &one, sizeof one);
  errno = saved;
}

struct sigaction action(void (*handler)(int)) {
  struct sigaction made {};
  made.sa_handler = handler;
  made.sa_flags = SA_RESTART;
  return made;
}

}  // namespace

Signals::Signals() : counter_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (!counter_.open()) throw DataError(fmt::format("cannot wait for signals (eventfd): {}", std::strerror(errno)));
  counter = counter_.number();
  const struct sigaction count = action(on_signal), ignore = action(SIG_IGN), normal = action(SIG_DFL);
  sigaction(SIGINT, &count, &interrupt_);
  sigaction(SIGTERM, &count, &terminate_);
  sigaction(SIGPIPE, &ignore, &pipe_);   // the processes inherit it: they go on when their launcher has died
  sigaction(SIGCHLD, &normal, &child_);  // where it is ignored nobody learns how a process ended
}

Signals::~Signals() {
  sigaction(SIGINT, &interrupt_, nullptr);
  sigaction(SIGTERM, &terminate_, nullptr);
  sigaction(SIGPIPE, &pipe_, nullptr);
  sigaction(SIGCHLD, &child_, nullptr);
  counter = -1;
}

int Signals::take() const {
  std::uint64_t count = 0;
  if (::read(counter_.number(), &count, sizeof count) != sizeof count) return 0;
  return static_cast<int>(count);
}

}  // namespace rubato
