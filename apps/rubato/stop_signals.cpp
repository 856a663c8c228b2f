#include "stop_signals.h"

#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>

#include "rubato/core/error.h"
#include "rubato/launch/job_code.h"

namespace rubato::app {
namespace {

std::atomic<SignalFollower*> following{nullptr};
std::atomic<std::int64_t> wished_at{0}, merged{0};  ///< milliseconds of the machine's clock; 0: not yet

std::int64_t milliseconds_now() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return std::int64_t{now.tv_sec} * 1000 + now.tv_nsec / 1'000'000 + 1;
}

void end_now(int, siginfo_t* signal, void*) {
  _exit(job_code_of(*signal).value_or(static_cast<int>(ExitCode::interrupted)));
}

void on_signal(int, siginfo_t* signal, void*) {
  const int saved = errno;
  SignalFollower* follower = following;
  if (const std::optional<int> code = job_code_of(*signal)) {
    if (follower == nullptr) _exit(*code);
    follower->job_has_ended(*code);
  } else {
    const std::int64_t now = milliseconds_now();
    std::int64_t first = 0;
    if (!wished_at.compare_exchange_strong(first, now)) {
      if (now - first > merged) _exit(static_cast<int>(ExitCode::interrupted));
    } else if (follower != nullptr) {
      follower->stop();
    }
  }
  errno = saved;
}

struct sigaction action(void (*handler)(int, siginfo_t*, void*)) {
  struct sigaction made {};
  made.sa_sigaction = handler;
  made.sa_flags = SA_SIGINFO | SA_RESTART;
  return made;
}

}  // namespace

void end_at_signals() {
  const struct sigaction end = action(end_now);
  for (const int number : {SIGINT, SIGTERM}) {
    struct sigaction before {};
    if (sigaction(number, nullptr, &before) == 0 && before.sa_handler == SIG_DFL) sigaction(number, &end, nullptr);
  }
}

StopSignals::StopSignals(std::chrono::milliseconds one_wish) {
  merged = one_wish.count();
  wished_at = 0;
  const struct sigaction wish = action(on_signal);
  sigaction(SIGINT, &wish, &interrupt_);
  sigaction(SIGTERM, &wish, &terminate_);
}

StopSignals::~StopSignals() {
  sigaction(SIGINT, &interrupt_, nullptr);
  sigaction(SIGTERM, &terminate_, nullptr);
  following = nullptr;
}

void StopSignals::follow(SignalFollower* follower) {
  following = follower;
  if (follower != nullptr && wished_at != 0) follower->stop();
}

}  // namespace rubato::app
