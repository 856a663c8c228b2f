#pragma once

namespace rubato {

/// Bytes that malloc has handed out to this process and not got back; with jemalloc, those of the calling thread.
/// For measurements; the difference of two calls in one thread is what was kept in between.
double bytes_in_use();

}  // namespace rubato
