#pragma once

#include <functional>
#include <string>
#include <zmq.hpp>

namespace rubato {

/// Hears from ZeroMQ which connections to `socket` failed before they had anything to say. On the thread of the socket.
class Monitor {
 public:
  Monitor(zmq::context_t& context, zmq::socket_t& socket);
  ~Monitor();
  /// Calls `failed(reason, address)` for each since the last call.
  void collect(const std::function<void(const std::string&, const std::string&)>& failed);

 private:
  zmq::socket_t& socket_;
  zmq::socket_t events_;
};

}  // namespace rubato
