#include "rubato/model/process.h"

#include <malloc.h>
#include <torch/torch.h>

namespace rubato {

void prepare_process() {
  // By default glibc returns every large activation to the system and faults it in again at the next step.
  mallopt(M_MMAP_THRESHOLD, 1 << 30);
  mallopt(M_TRIM_THRESHOLD, 1 << 30);
  // One arena for all threads: what one role frees another uses again. With an arena per thread memory that is allocated in one
  // and freed in another fragments them all; PD-ASGD lost a fifth of its speed and DDG half as much again of its memory to that.
  mallopt(M_ARENA_MAX, 1);
}

void prepare_thread(int threads) {
  at::set_num_threads(threads);
}

std::string plain_message(const std::exception& error) {
  const auto* torch_error = dynamic_cast<const c10::Error*>(&error);
  return torch_error != nullptr ? torch_error->what_without_backtrace() : error.what();
}

}  // namespace rubato
