#pragma once

#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <string>

namespace rubato::test {

/// What `text` returns in a process of its own: SimGrid's clock runs on from one simulator to the next, and the last bit of a
/// time that is not counted from zero may reorder what happens at the same moment.
inline std::string in_fresh_process(const std::function<std::string()>& text) {
  int ends[2];
  if (pipe(ends) != 0) return "no pipe";
  const pid_t child = fork();
  if (child == 0) {
    const std::string all = text();
    for (std::size_t sent = 0; sent < all.size();) {
      const ssize_t part = write(ends[1], all.data() + sent, all.size() - sent);
      if (part <= 0) _exit(1);
      sent += static_cast<std::size_t>(part);
    }
    _exit(0);
  }
  close(ends[1]);
  std::string all;
  char buffer[4096];
  for (ssize_t got = read(ends[0], buffer, sizeof buffer); got > 0; got = read(ends[0], buffer, sizeof buffer)) {
    all.append(buffer, static_cast<std::size_t>(got));
  }
  close(ends[0]);
  waitpid(child, nullptr, 0);
  return all;
}

}  // namespace rubato::test
