#pragma once

#include <httplib.h>

#include <atomic>
#include <chrono>

namespace rubato {

/// A connection that ends by itself: after a number of bytes received, after a time, or when `stopped` is set. httplib alone
/// reads lines of any length for as long as each byte comes soon enough, so that one client could hold a thread and memory for
/// ever.
class BoundedStream final : public httplib::Stream {
 public:
  BoundedStream(socket_t socket, const std::atomic<bool>& stopped) : socket_(socket), stopped_(stopped) {}
  bool is_readable() const override { return true; }
  bool is_writable() const override { return !stopped_ && Clock::now() < deadline_; }
  ssize_t read(char* to, size_t size) override;
  ssize_t write(const char* from, size_t size) override;
  void get_remote_ip_and_port(std::string&, int&) const override {}  // nobody asks
  void get_local_ip_and_port(std::string&, int&) const override {}
  socket_t socket() const override { return socket_; }

 private:
  using Clock = std::chrono::steady_clock;
  static constexpr std::chrono::seconds time_limit{3};
  static constexpr size_t byte_limit = 16 << 10;  // of a request

  bool wait_for(short events) const;

  socket_t socket_;
  const std::atomic<bool>& stopped_;
  Clock::time_point deadline_ = Clock::now() + time_limit;
  size_t left_ = byte_limit;
  char buffer_[2048];
  size_t begin_ = 0, end_ = 0;  ///< of what is unread in the buffer
};

}  // namespace rubato
