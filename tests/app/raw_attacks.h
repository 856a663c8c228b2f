#pragma once

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>
#include <utility>
#include <vector>

namespace rubato::test {

/// A TCP connection of somebody who need not speak ZeroMQ.
class RawConnection {
 public:
  explicit RawConnection(int port);
  ~RawConnection() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  RawConnection(RawConnection&& other) noexcept
      : descriptor_(std::exchange(other.descriptor_, -1)), connected_(other.connected_) {}
  RawConnection& operator=(RawConnection&&) = delete;

  bool connected() const { return connected_; }
  void say(const std::string& bytes) const {
    (void)!::send(descriptor_, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  }
  /// Until the other side says something or ends the connection, but not for long.
  void listen() const {
    pollfd item{descriptor_, POLLIN, 0};
    ::poll(&item, 1, 20);
  }

 private:
  int descriptor_;
  bool connected_ = false;
};

/// The first 64 bytes of ZMTP 3.0 (RFC 23), of a client.
std::string zmtp_greeting(const std::string& mechanism);
/// What a peer may send that has no ZeroMQ: each element arrives apart.
using RawSpeech = std::vector<std::string>;
/// `number` chooses among several.
RawSpeech raw_speech(int number, const std::string& token);

}  // namespace rubato::test
