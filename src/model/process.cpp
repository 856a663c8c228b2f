#include "rubato/model/process.h"

#include <fmt/format.h>
#include <malloc.h>
#include <torch/torch.h>

#include <filesystem>
#include <regex>
#include <system_error>

#include "rubato/core/read_file.h"
#include "rubato/core/threads.h"
#include "rubato/model/memory_error.h"

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

Failure failure_of(const std::exception& error) {
  if (const auto* ours = dynamic_cast<const Error*>(&error)) return {ours->code(), ours->what()};
  if (const auto* of_files = dynamic_cast<const std::filesystem::filesystem_error*>(&error)) {
    return {ExitCode::data, sentence_of(*of_files)};
  }
  const auto* of_system = dynamic_cast<const std::system_error*>(&error);
  if (of_system != nullptr && of_system->code() == std::errc::resource_unavailable_try_again) {
    return {ExitCode::internal, no_more_threads().what()};
  }
  const auto* of_torch = dynamic_cast<const c10::Error*>(&error);
  const std::string text = of_torch != nullptr ? of_torch->what_without_backtrace() : error.what();
  if (!is_out_of_memory(error)) return {ExitCode::internal, text.substr(0, text.find('\n'))};
  std::smatch bytes;
  const bool known = std::regex_search(text, bytes, std::regex("allocate ([0-9]+) bytes"));
  return {ExitCode::internal,
          fmt::format("out of memory{}: try a smaller model or --batch-size, or fewer replicas or workers",
                      known ? fmt::format(" ({:.1f} GB were asked for at once)", std::stod(bytes[1]) / 1e9) : "")};
}

}  // namespace rubato
