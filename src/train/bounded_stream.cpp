#include "train/bounded_stream.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace rubato {
namespace {

constexpr int tick_ms = 50;  // between two looks at `stopped`

bool passing(ssize_t result) {
  return result < 0 && (errno == EINTR || errno == EAGAIN || errno == EWOULDBLOCK);
}

}  // namespace

bool BoundedStream::wait_for(short events) const {
  while (is_writable()) {
    pollfd watched{socket_, events, 0};
    const int ready = ::poll(&watched, 1, tick_ms);
    if (ready > 0) return true;
    if (ready < 0 && errno != EINTR) return false;
  }
  return false;
}

ssize_t BoundedStream::read(char* to, size_t size) {
  if (begin_ == end_) {
    ssize_t got = -1;
    do {
      if (left_ == 0 || !wait_for(POLLIN)) return -1;
      got = ::recv(socket_, buffer_, std::min(sizeof buffer_, left_), MSG_DONTWAIT);
    } while (passing(got));
    if (got <= 0) return got;
    begin_ = 0;
    end_ = static_cast<size_t>(got);
    left_ -= end_;
  }
  const size_t part = std::min(size, end_ - begin_);
  std::memcpy(to, buffer_ + begin_, part);
  begin_ += part;
  return static_cast<ssize_t>(part);
}

ssize_t BoundedStream::write(const char* from, size_t size) {
  ssize_t sent = -1;
  do {
    if (!wait_for(POLLOUT)) return -1;
    sent = ::send(socket_, from, size, MSG_DONTWAIT | MSG_NOSIGNAL);
  } while (passing(sent));
  return sent;
}

}  // namespace rubato
