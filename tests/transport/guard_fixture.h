#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "transport/guard.h"

namespace rubato::test {

/// Long enough for a busy machine: only a failure waits for so long.
inline constexpr int patience_ms = 20000;

/// Those turned away.
class Refusals {
 public:
  void add(const std::string& address, const std::string& reason) {
    const std::lock_guard lock(mutex_);
    all_.push_back(address + ": " + reason);
    changed_.notify_all();
  }
  std::vector<std::string> wait_for(std::size_t count) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, std::chrono::milliseconds(patience_ms), [&] { return all_.size() >= count; });
    return all_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::string> all_;
};

class GuardTest : public testing::Test {
 protected:
  zmq::socket_t protected_socket(bool curve, int handshake = patience_ms) {
    zmq::socket_t socket(context_, zmq::socket_type::pull);
    protect(socket, credentials_, curve, handshake);
    // Otherwise ZeroMQ would take as much memory as a stranger's first bytes claim to need.
    socket.set(zmq::sockopt::maxmsgsize, std::int64_t{1} << 20);
    return bound(std::move(socket));
  }

  static zmq::socket_t bound(zmq::socket_t socket) {
    socket.set(zmq::sockopt::rcvtimeo, patience_ms);
    socket.bind("tcp://127.0.0.1:*");
    return socket;
  }

  static std::string address_of(zmq::socket_t& socket) { return socket.get(zmq::sockopt::last_endpoint); }

  zmq::socket_t stranger() {
    zmq::socket_t socket(outside_, zmq::socket_type::push);
    socket.set(zmq::sockopt::linger, 0);
    return socket;
  }

  zmq::socket_t peer(const Credentials& credentials, bool curve) {
    zmq::socket_t socket = stranger();
    introduce(socket, credentials, curve);
    return socket;
  }

  static void say(zmq::socket_t& from, zmq::socket_t& to, const std::string& text) {
    from.connect(address_of(to));
    from.send(zmq::buffer(text), zmq::send_flags::none);
  }

  static std::string hear(zmq::socket_t& socket, zmq::recv_flags flags = zmq::recv_flags::none) {
    zmq::message_t message;
    return socket.recv(message, flags) ? message.to_string() : "nothing";
  }

  /// The good peer gets through, and nothing came before or besides.
  void expect_only_the_good_peer(zmq::socket_t& server, bool curve) {
    zmq::socket_t good = peer(credentials_, curve);
    say(good, server, "good");
    EXPECT_EQ(hear(server), "good");
    EXPECT_EQ(hear(server, zmq::recv_flags::dontwait), "nothing");
  }

  std::unique_ptr<Guard> started() {
    return std::make_unique<Guard>(context_, credentials_, [this](const std::string& address, const std::string& reason) {
      refusals_.add(address, reason);
    });
  }

  const Credentials credentials_ = make_credentials();
  Refusals refusals_;
  zmq::context_t context_, outside_;
  std::unique_ptr<Guard> guard_ = started();
};

}  // namespace rubato::test
