#pragma once

#include <exception>
#include <string>

#include "rubato/core/error.h"

namespace rubato {

/// Tunes malloc for training: memory of large activations stays in the process. Call once, at the start of main.
void prepare_process();

/// Gives the calling thread `threads` intra-op threads. Every role's thread calls it.
void prepare_thread(int threads);

/// What whoever started the process is told.
struct Failure {
  ExitCode code;
  std::string sentence;  ///< one line
};

/// Of any exception: what is wrong, where that is known, in words of rubato; only errors inside libtorch speak for themselves.
Failure failure_of(const std::exception& error);

}  // namespace rubato
