#pragma once

#include <csignal>

#include "rubato/core/error.h"

namespace rubato {

/// How many more threads the system gives this process now, `wanted` at most: for those who ask, because a library that is given
/// none ends the process.
int threads_to_be_had(int wanted);

/// While it lives, its thread takes no signal, and threads that it starts never do.
class SignalsBlocked {
 public:
  SignalsBlocked();
  ~SignalsBlocked();
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;

 private:
  sigset_t before_;
};

/// "the system gives this process no more threads or processes: ...", with ExitCode::internal.
Error no_more_threads();

}  // namespace rubato
