#include <unistd.h>

#include <cerrno>
#include <climits>

#include "allocator/allocator.h"
#include "rubato/app/command_line.h"
#include "rubato/core/error.h"
#include "stop_signals.h"

/// Before any library is made ready: a signal finds a process that ends with its code, and those of libtorch end the process
/// where there is no working folder, in words of their own.
void begin(int, char**, char**) {
  rubato::app::end_at_signals();
  char folder[PATH_MAX];
  if (getcwd(folder, sizeof folder) != nullptr || errno != ENOENT) return;
  constexpr char sentence[] = "rubato: the working folder has been removed: change to one that exists\n";
  [[maybe_unused]] const ssize_t told = write(STDERR_FILENO, sentence, sizeof sentence - 1);
  _exit(static_cast<int>(rubato::ExitCode::data));
}
[[gnu::section(".preinit_array"), gnu::used]] void (*const before_libraries)(int, char**, char**) = begin;

int main(int argc, char** argv) {
  return rubato::run_command_line(argc, argv, rubato::give_memory_back);
}
