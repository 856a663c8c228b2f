#pragma once

namespace rubato {

/// Bytes that malloc has handed out to this process and not got back; with jemalloc, those of the calling thread.
/// For measurements; the difference of two calls in one thread is what was kept in between.
double bytes_in_use();

/// From now on memory that has been free for a moment goes back to the system: for programs whose need changes by gigabytes.
/// Costs what faulting it in again costs.
void give_memory_back();

}  // namespace rubato
