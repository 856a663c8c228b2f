#include "support.h"

#include <cstdint>

#include <sys/wait.h>
#include <unistd.h>

namespace rubato::bench {

std::pair<double, double> peak_bytes(const TrainOptions& options, std::int64_t steps) {
  int pipe_ends[2];
  if (pipe(pipe_ends) != 0) return {0, 0};
  std::fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    Contender contender(options);
    double peaks[2];
    const auto peak = [] {
      rusage usage{};
      getrusage(RUSAGE_SELF, &usage);
      return static_cast<double>(usage.ru_maxrss) * 1024;
    };
    contender.seconds_per_batch(std::max<std::int64_t>(1, steps / 10));
    peaks[0] = peak();
    contender.seconds_per_batch(steps - steps / 10);
    peaks[1] = peak();
    const ssize_t written = write(pipe_ends[1], peaks, sizeof peaks);
    _exit(written == sizeof peaks ? 0 : 1);
  }
  close(pipe_ends[1]);
  double peaks[2] = {0, 0};
  const ssize_t got = read(pipe_ends[0], peaks, sizeof peaks);
  close(pipe_ends[0]);
  waitpid(child, nullptr, 0);
  return got == sizeof peaks ? std::pair{peaks[0], peaks[1]} : std::pair{0.0, 0.0};
}

}  // namespace rubato::bench
