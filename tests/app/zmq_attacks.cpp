#include "app/zmq_attacks.h"

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <limits>

#include "transport/guard.h"
#include "transport/peers.h"
#include "transport/random_frames.h"

namespace rubato::test {
namespace {

constexpr int patience = 1000;  // ms; an attack that takes longer counts for what it has done until then

zmq::socket_t stranger(zmq::context_t& context) {
  zmq::socket_t socket(context, zmq::socket_type::dealer);
  socket.set(zmq::sockopt::linger, 200);
  socket.set(zmq::sockopt::reconnect_ivl, -1);  // each socket is one connection
  return socket;
}

/// Whether a connection came about; waits until the other side has let it in or turned it away.
bool connect(zmq::context_t& context, zmq::socket_t& socket, const std::string& endpoint) {
  static std::atomic<int> count = 0;
  const std::string address = "inproc://outcome-" + std::to_string(++count);
  zmq_socket_monitor(socket.handle(), address.c_str(), ZMQ_EVENT_ALL);
  zmq::socket_t events(context, zmq::socket_type::pair);
  events.set(zmq::sockopt::rcvtimeo, patience);
  events.connect(address);
  socket.connect(endpoint);
  bool connected = false;
  for (zmq::message_t event, from; events.recv(event);) {
    (void)events.recv(from);
    std::uint16_t kind = 0;
    std::memcpy(&kind, event.data(), sizeof kind);
    connected = connected || kind == ZMQ_EVENT_CONNECTED;
    if (kind != ZMQ_EVENT_CONNECT_DELAYED && kind != ZMQ_EVENT_CONNECTED) break;
  }
  zmq_socket_monitor(socket.handle(), nullptr, 0);
  return connected;
}

Frame hello(Greeting greeting) {
  return {.kind = FrameKind::hello, .content = pack_greeting(greeting)};
}

Frame with_tensor(std::vector<std::int64_t> sizes, const std::string& bytes) {
  Frame frame{.kind = FrameKind::message, .about = "requests"};
  frame.content.numbers = {0};
  frame.content.tensors = {{6, std::move(sizes), blob_of(bytes)}};
  return frame;
}

/// As its sender would send it.
Speech parts(const Frame& frame) {
  Speech all = {frame_head(frame)};
  for (const Blob& blob : parts_of(frame)) all.push_back(bytes_of(blob));
  return all;
}

Speech mutated(Dice& dice) {
  Speech all = parts(random_frame(dice));
  for (std::size_t left = 1 + dice.below(4); left > 0; --left) mutate(dice, all[dice.below(all.size())]);
  return all;
}

Speech cut(Dice& dice) {
  Speech all = parts(with_tensor({4}, dice.bytes(16)));
  all.pop_back();
  return all;
}

}  // namespace

Speech hostile_speech(int number) {
  constexpr std::int64_t most = std::numeric_limits<std::int64_t>::max();
  Dice dice(static_cast<std::uint64_t>(number));
  const auto any_rank = static_cast<int>(dice.any());
  const std::string digest = dice.bytes(64);
  switch (number % 14) {
    case 0:
      return parts(hello({.rank = 0, .digest = digest, .endpoint = "tcp://127.0.0.1:1", .host = "elsewhere"}));
    case 1:
      return parts(hello({.rank = any_rank, .incarnation = any_rank, .digest = digest}));
    case 2:  // a hello that greets nobody
      return {frame_head({.kind = FrameKind::hello})};
    case 3:
      return parts({.kind = FrameKind::message, .about = dice.bytes(20), .content = {.numbers = {1}}});
    case 4:
      return parts({.kind = FrameKind::order, .about = "leave"});
    case 5:
      return parts({.kind = FrameKind::report, .about = "failed", .content = {.numbers = {2}, .texts = {"no"}}});
    case 6:
      return cut(dice);
    case 7:
      return {dice.bytes(dice.below(2000))};
    case 8:
      return parts(with_tensor({4}, dice.bytes(1 + dice.below(15))));
    case 9:
      return parts(with_tensor({most / 8}, "few bytes"));
    case 10:
      return parts(with_tensor({most, most}, "few bytes"));
    case 11:  // a larger head than is taken
      return {std::string((1 << 22) + 1, 'x')};
    case 12:
      return parts({.kind = static_cast<FrameKind>(11 + dice.below(50)), .about = "requests"});
    default:
      return mutated(dice);
  }
}

bool intrude(zmq::context_t& context, const std::string& endpoint, const Credentials& credentials, int number) {
  zmq::socket_t socket = stranger(context);
  Credentials shown = make_credentials();
  switch (number % 4) {
    case 0:
      introduce(socket, shown, false);
      break;
    case 1:  // of the job, but not what is asked for
      introduce(socket, credentials, true);
      break;
    case 2:
      shown.token = credentials.token.substr(1);
      introduce(socket, shown, false);
      break;
    default:  // none
      break;
  }
  return connect(context, socket, endpoint);
}

bool speak(zmq::context_t& context, const std::string& endpoint, const Credentials& credentials, const Speech& speech,
           const std::string& identity) {
  zmq::socket_t socket = stranger(context);
  if (!identity.empty()) socket.set(zmq::sockopt::routing_id, identity);
  introduce(socket, credentials, false);
  if (!connect(context, socket, endpoint)) return false;
  for (const std::string& part : speech) {
    socket.send(zmq::buffer(part), &part == &speech.back() ? zmq::send_flags::dontwait : zmq::send_flags::sndmore);
  }
  socket.set(zmq::sockopt::rcvtimeo, 20);
  zmq::message_t answer;
  (void)socket.recv(answer);
  return true;
}

}  // namespace rubato::test
