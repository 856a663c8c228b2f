#include "transport/monitor.h"

#include <cstdint>
#include <cstring>

namespace rubato {
namespace {

constexpr int failures = ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL | ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL;

}  // namespace

Monitor::Monitor(zmq::context_t& context, zmq::socket_t& socket) : socket_(socket), events_(context, zmq::socket_type::pair) {
  const std::string address = "inproc://monitor-" + std::to_string(reinterpret_cast<std::uintptr_t>(this));
  zmq_socket_monitor(socket.handle(), address.c_str(), failures);
  events_.set(zmq::sockopt::linger, 0);
  events_.set(zmq::sockopt::rcvhwm, 0);  // ZeroMQ's own thread would wait for room
  events_.connect(address);
}

Monitor::~Monitor() {
  zmq_socket_monitor(socket_.handle(), nullptr, 0);
}

void Monitor::collect(const std::function<void(const std::string&, const std::string&)>& failed) {
  for (;;) {
    zmq::message_t event, address;
    if (!events_.recv(event, zmq::recv_flags::dontwait)) return;
    if (event.more()) [[maybe_unused]]
      const auto received = events_.recv(address, zmq::recv_flags::none);
    std::uint16_t kind = 0;
    std::memcpy(&kind, event.data(), sizeof kind);
    failed(kind == ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL ? "no ZeroMQ handshake" : "handshake not finished", address.to_string());
  }
}

}  // namespace rubato
