#pragma once

#include "rubato/core/error.h"

namespace rubato {

/// How many more threads the system gives this process now, `wanted` at most: for those who ask, because a library that is given
/// none ends the process.
int threads_to_be_had(int wanted);

/// "the system gives this process no more threads or processes: ...", with ExitCode::internal.
Error no_more_threads();

}  // namespace rubato
