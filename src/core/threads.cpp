#include "rubato/core/threads.h"

#include <latch>
#include <system_error>
#include <thread>
#include <vector>

namespace rubato {

int threads_to_be_had(int wanted) {
  std::latch all_asked(1);
  std::vector<std::jthread> threads;
  try {
    for (int i = 0; i < wanted; ++i) threads.emplace_back([&] { all_asked.wait(); });
  } catch (const std::system_error&) {
  }
  all_asked.count_down();
  return static_cast<int>(threads.size());
}

Error no_more_threads() {
  return {ExitCode::internal,
          "the system gives this process no more threads or processes: raise its limit (ulimit -u, or the container's), or take "
          "fewer workers"};
}

}  // namespace rubato
