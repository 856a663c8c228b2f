#pragma once

#include <csignal>
#include <optional>

namespace rubato {

// The launcher ends a worker whose coordinator has ended by SIGTERM with a value beside it: the exit code of the job.

/// What travels with the signal. `code`: from 0 to 255.
inline int value_of_job_code(int code) {
  return 0x52420000 | code;  // no number that `kill -q` would give by chance
}

/// The exit code of the job that a signal tells; nothing: it is an ordinary signal. Callable from a signal handler.
inline std::optional<int> job_code_of(const siginfo_t& signal) {
  if (signal.si_code != SI_QUEUE || (signal.si_value.sival_int & ~0xFF) != value_of_job_code(0)) return std::nullopt;
  return signal.si_value.sival_int & 0xFF;
}

}  // namespace rubato
