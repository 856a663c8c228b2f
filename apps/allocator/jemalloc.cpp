#include <jemalloc/jemalloc.h>

#include <cstdint>
#include <initializer_list>

#include "allocator/allocator.h"

// Read by jemalloc before main. Activations of the same sizes come back at every step, so memory is kept and never purged; one
// arena, because what one role frees another uses again; huge pages, because activations are megabytes.
extern "C" {
const char* malloc_conf = "narenas:1,oversize_threshold:0,dirty_decay_ms:-1,muzzy_decay_ms:-1,thp:always";
}

namespace rubato {

double bytes_in_use() {
  std::uint64_t allocated = 0, freed = 0;
  std::size_t size = sizeof allocated;
  mallctl("thread.allocated", &allocated, &size, nullptr, 0);
  mallctl("thread.deallocated", &freed, &size, nullptr, 0);
  return static_cast<double>(allocated) - static_cast<double>(freed);
}

void give_memory_back() {
  ssize_t milliseconds = 5000;
  for (const char* name : {"arena.0.dirty_decay_ms", "arena.0.muzzy_decay_ms"}) {
    mallctl(name, nullptr, nullptr, &milliseconds, sizeof milliseconds);
  }
}

}  // namespace rubato
