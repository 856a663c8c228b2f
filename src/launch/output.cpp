#include "launch/output.h"

#include <poll.h>

#include <array>
#include <cerrno>
#include <string_view>

namespace rubato {
namespace {

constexpr std::size_t longest_line = 1 << 16;
constexpr int most_reads_at_end = 64;  // a process that outlives the one that started it may hold the pipe and write on

}  // namespace

void Output::pass_on() {
  if (!read_once() && errno != EAGAIN) finish();
}

void Output::finish() {
  for (int i = 0; i < most_reads_at_end && read_once(); ++i) {
  }
  if (!partial_.empty()) take("\n", 1);
  source_.close();
}

bool Output::read_once() {
  std::array<char, 1 << 16> buffer;
  errno = 0;
  ssize_t got = 0;
  do {
    got = ::read(source_.number(), buffer.data(), buffer.size());
  } while (got < 0 && errno == EINTR);
  if (got > 0) take(buffer.data(), static_cast<std::size_t>(got));
  return got > 0;
}

void Output::take(const char* text, std::size_t size) {
  if (target_ < 0) return;
  partial_.append(text, size);
  if (partial_.size() > longest_line && partial_.find('\n') == std::string::npos) partial_ += '\n';
  std::string lines;
  std::size_t begin = 0;
  for (std::size_t end = partial_.find('\n'); end != std::string::npos; end = partial_.find('\n', begin)) {
    lines += prefix_;
    lines += std::string_view(partial_).substr(begin, end + 1 - begin);
    begin = end + 1;
  }
  partial_.erase(0, begin);
  if (!lines.empty()) write(lines);
}

void Output::write(const std::string& text) {
  for (std::size_t done = 0; done < text.size();) {
    const ssize_t written = ::write(target_, text.data() + done, text.size() - done);
    if (written > 0) {
      done += static_cast<std::size_t>(written);
    } else if (errno == EAGAIN) {
      pollfd target{target_, POLLOUT, 0};
      poll(&target, 1, -1);
    } else if (errno != EINTR) {
      lost_ = lost_ || errno != EPIPE;
      return;  // the job goes on
    }
  }
}

}  // namespace rubato
