#pragma once

#include <exception>
#include <string>

namespace rubato {

/// Tunes malloc for training: memory of large activations stays in the process. Call once, at the start of main.
void prepare_process();

/// Gives the calling thread `threads` intra-op threads. Every role's thread calls it.
void prepare_thread(int threads);

/// `error.what()` without libtorch's backtrace.
std::string plain_message(const std::exception& error);

}  // namespace rubato
