#include <fmt/format.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cctype>
#include <cerrno>
#include <charconv>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <deque>
#include <mutex>
#include <string_view>
#include <system_error>
#include <thread>
#include <zmq.hpp>

#include "rubato/core/error.h"
#include "rubato/core/threads.h"
#include "transport/transport_implementation.h"

namespace rubato {
namespace {

constexpr std::size_t most_reasons = 1000;  // that are kept apart
constexpr int most_in_a_turn = 256;         // frames, before it is somebody else's turn
constexpr int most_waiting = 1000;          // messages; then senders wait
constexpr std::size_t for_encryption = 64;  // bytes that CURVE adds to a part

/// Nobody can guess it: whoever connects under the name of another takes over its connection.
std::string new_identity() {
  std::array<unsigned char, 16> bytes{};
  if (getrandom(bytes.data(), bytes.size(), 0) != static_cast<ssize_t>(bytes.size()))
    throw std::runtime_error("the system has no random numbers");
  std::string name;
  for (const unsigned char byte : bytes) name += fmt::format("{:02x}", byte);
  return name;
}

/// DataError for what is not "tcp://HOST:PORT". ZeroMQ would look up whatever stands for a host, and take of a port what 16 bits
/// hold.
void require_address(const std::string& endpoint) {
  constexpr std::string_view scheme = "tcp://";
  const std::size_t colon = endpoint.rfind(':');
  bool is_one = endpoint.starts_with(scheme) && colon != std::string::npos && colon > scheme.size();
  if (is_one) {
    const auto host = std::string_view(endpoint).substr(scheme.size(), colon - scheme.size());
    is_one =
        std::ranges::all_of(host, [](unsigned char c) { return std::isalnum(c) != 0 || std::strchr("._-[]:%", c) != nullptr; });
    unsigned port = 0;
    const char* const end = endpoint.data() + endpoint.size();
    const auto [rest, error] = std::from_chars(endpoint.data() + colon + 1, end, port);
    is_one = is_one && error == std::errc() && rest == end && port >= 1 && port <= 65535;
  }
  if (!is_one) throw DataError("'" + endpoint + "' is no address of another process");
}

}  // namespace

/// ZeroMQ's two, the guard's and the transport's own.
constexpr int threads_of_a_transport = 4;

std::int64_t Refusals::count() const {
  std::int64_t all = 0;
  for (const auto& [reason, times] : reasons) all += times;
  return all;
}

Transport::Implementation::Implementation(TransportOptions options, TransportListener& listener)
    : options_(std::move(options)), listener_(listener), context_(1), wake_fd_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
  if (threads_to_be_had(threads_of_a_transport) < threads_of_a_transport)
    throw no_more_threads();                  // ZeroMQ would end the process
  const SignalsBlocked in_threads_of_zeromq;  // which it starts with the first socket
  guard_ = std::make_unique<Guard>(context_, options_.credentials,
                                   [this](const std::string& address, const std::string& reason) { refuse(reason, address); });
  router_ = zmq::socket_t(context_, zmq::socket_type::router);
  configure(router_);
  router_.set(zmq::sockopt::router_handover, true);
  protect(router_, options_.credentials, options_.curve);
  monitor_ = std::make_unique<Monitor>(context_, router_);
  try {
    router_.bind(options_.bind);
  } catch (const zmq::error_t& error) {
    throw UsageError("cannot accept connections at " + options_.bind + ": " + error.what() + "; name another address or port");
  }
  options_.me.endpoint = router_.get(zmq::sockopt::last_endpoint);
}

Transport::Implementation::~Implementation() {
  thread_.request_stop();
  wake();
  if (thread_.joinable()) thread_.join();
  close(wake_fd_);
  dealers_.clear();
  monitor_.reset();
  router_.close();
  guard_.reset();
}

void Transport::Implementation::configure(zmq::socket_t& socket) const {
  socket.set(zmq::sockopt::linger, 0);
  socket.set(zmq::sockopt::sndhwm, 0);
  socket.set(zmq::sockopt::rcvhwm, most_waiting);
  socket.set(zmq::sockopt::maxmsgsize,
             static_cast<std::int64_t>(std::max(options_.limits.tensor_bytes, options_.limits.head_bytes) + for_encryption));
  if (!options_.reconnect) return;
  socket.set(zmq::sockopt::heartbeat_ivl, 1000);
  socket.set(zmq::sockopt::heartbeat_timeout, 4000);
}

void Transport::Implementation::wake() const {
  const std::uint64_t one = 1;
  [[maybe_unused]] const auto written = write(wake_fd_, &one, sizeof one);
}

void Transport::Implementation::send(int peer, Frame frame) {
  Letter letter{
      peer, parts_of(frame),
      Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(options_.latency_seconds))};
  {
    const std::lock_guard lock(mutex_);
    outbox_.push_back(std::move(letter));
  }
  wake();
}

void Transport::Implementation::know(int peer, const std::string& endpoint) {
  const std::lock_guard lock(mutex_);
  requests_.push_back({peer, endpoint, ""});
}

void Transport::Implementation::ban(int peer, const std::string& reason) {
  refuse(reason, "process " + std::to_string(peer));
  const std::lock_guard lock(mutex_);
  requests_.push_back({peer, "", reason});
  wake();
}

void Transport::Implementation::flush(double seconds) {
  std::unique_lock lock(mutex_);
  emptied_.wait_for(lock, std::chrono::duration<double>(seconds), [this] { return outbox_.empty(); });
}

Traffic Transport::Implementation::traffic() const {
  const std::lock_guard lock(mutex_);
  return traffic_;
}

Refusals Transport::Implementation::refusals() const {
  const std::lock_guard lock(mutex_);
  return refusals_;
}

void Transport::Implementation::refuse(const std::string& reason, const std::string& detail) {
  const std::lock_guard lock(mutex_);
  const bool apart = refusals_.reasons.size() < most_reasons || refusals_.reasons.contains(reason);
  ++refusals_.reasons[apart ? reason : "others"];
  refusals_.last = reason + " (" + detail + ")";
}

void Transport::Implementation::run(const std::stop_token& stop) {
  while (!stop.stop_requested()) {
    try {
      turn();
    } catch (const std::exception& error) {
      refuse(std::string("the transport cannot go on: ") + error.what(), "this process");
      std::this_thread::sleep_for(
          std::chrono::milliseconds(10));  // it may stay so for a while: memory or descriptors are missing
    }
  }
}

void Transport::Implementation::turn() {
  work_off();
  wait();
  receive_strangers();
  for (auto& [peer, socket] : dealers_) receive_known(peer, socket);
  monitor_->collect([this](const std::string& reason, const std::string& address) { refuse(reason, address); });
  if (Clock::now() >= next_beat_) beat();
}

/// Until something comes, a letter is due, or it is time for a beat.
void Transport::Implementation::wait() {
  std::vector<zmq::pollitem_t> items = {{nullptr, wake_fd_, ZMQ_POLLIN, 0}, {router_.handle(), 0, ZMQ_POLLIN, 0}};
  for (auto& [peer, socket] : dealers_) items.push_back({socket.handle(), 0, ZMQ_POLLIN, 0});
  Clock::time_point until = next_beat_;
  {
    const std::lock_guard lock(mutex_);
    if (!outbox_.empty()) until = std::min(until, outbox_.front().due);
  }
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - Clock::now());
  try {
    zmq::poll(items, std::max(left, std::chrono::milliseconds(0)));
  } catch (const zmq::error_t& error) {
    if (error.num() != EINTR) throw;
  }
  std::uint64_t count = 0;
  [[maybe_unused]] const auto taken = read(wake_fd_, &count, sizeof count);
}

void Transport::Implementation::work_off() {
  std::deque<Letter> due;
  std::deque<Request> requests;
  {
    const std::lock_guard lock(mutex_);
    requests.swap(requests_);
    const Clock::time_point now = Clock::now();
    while (!outbox_.empty() && outbox_.front().due <= now) {
      due.push_back(std::move(outbox_.front()));
      outbox_.pop_front();
    }
  }
  for (const Request& request : requests) {
    if (!request.ban.empty()) {
      peers_.ban(request.peer);
    } else if (std::exchange(endpoints_[request.peer], request.endpoint) != request.endpoint) {
      dealers_.erase(request.peer);
    }
  }
  for (Letter& letter : due) post(std::move(letter));
  const std::lock_guard lock(mutex_);
  if (outbox_.empty()) emptied_.notify_all();
}

void Transport::Implementation::post(Letter letter) {
  const int peer = letter.peer;
  try {
    deliver(std::move(letter));
  } catch (const std::exception& error) {
    refuse(std::string("no connection can be made: ") + error.what(), "process " + std::to_string(peer));
    endpoints_.erase(peer);
  }
}

void Transport::Implementation::deliver(Letter letter) {
  const auto bytes = static_cast<std::int64_t>(bytes_of(letter.parts));
  if (const auto known = dealers_.find(letter.peer); known != dealers_.end()) {
    send_parts(known->second, nullptr, std::move(letter.parts));
  } else if (const auto at = endpoints_.find(letter.peer); at != endpoints_.end() && !is_coordinator()) {
    send_parts(dealer(letter.peer, at->second), nullptr, std::move(letter.parts));
  } else if (const std::string* identity = peers_.identity_of(letter.peer)) {
    send_parts(router_, identity, std::move(letter.parts));
  } else {
    return;
  }
  const std::lock_guard lock(mutex_);
  traffic_.sent += bytes;
}

zmq::socket_t& Transport::Implementation::dealer(int peer, const std::string& endpoint) {
  require_address(endpoint);
  zmq::socket_t socket(context_, zmq::socket_type::dealer);
  configure(socket);
  socket.set(zmq::sockopt::routing_id, new_identity());
  socket.set(zmq::sockopt::reconnect_ivl, 50);
  socket.set(zmq::sockopt::reconnect_ivl_max, 500);
  if (options_.reconnect) socket.set(zmq::sockopt::connect_timeout, 1500);
  introduce(socket, options_.credentials, options_.curve);
  socket.connect(endpoint);
  say_hello(socket);
  return dealers_[peer] = std::move(socket);
}

void Transport::Implementation::say_hello(zmq::socket_t& socket) {
  Greeting greeting = options_.me;
  greeting.details = listener_.details();
  send_parts(socket, nullptr, parts_of({.kind = FrameKind::hello, .content = pack_greeting(greeting)}));
}

void Transport::Implementation::receive_strangers() {
  bool cut = false;
  for (int i = 0; i < most_in_a_turn; ++i) {
    auto parts = receive_parts(router_, options_.limits.tensors + 2, cut);
    if (!parts) return;
    if (cut) {
      refuse("too many parts", "a frame");
    } else {
      from_router(std::move(*parts));
    }
  }
}

void Transport::Implementation::from_router(Parts parts) {
  const std::string identity = parts.front().to_string();
  if (peers_.is_banned(identity)) return;
  const auto bytes = static_cast<std::int64_t>(bytes_of(parts));
  try {
    Frame frame = frame_of(std::move(parts), 1, options_.limits);
    const auto rank = peers_.rank_of(identity);
    if (frame.kind == FrameKind::hello) return hello(identity, frame);
    if (!rank) return answer(identity, {.kind = FrameKind::who});
    {
      const std::lock_guard lock(mutex_);
      traffic_.received += bytes;
    }
    from_peer(*rank, std::move(frame), nullptr);
  } catch (const std::exception& error) {  // FrameError, PackError, what the listener cannot use
    refuse(error.what(), "a frame");
    peers_.ban(identity);
  }
}

void Transport::Implementation::answer(const std::string& identity, Frame frame) {
  send_parts(router_, &identity, parts_of(frame));
}

void Transport::Implementation::hello(const std::string& identity, const Frame& frame) {
  const Greeting greeting = unpack_greeting(frame.content);
  std::string reason;
  if (greeting.digest != options_.me.digest) {
    reason = "another configuration: all processes of a job need the same options and the same build";
    listener_.refused(greeting.rank, reason);
  } else {
    reason = listener_.admit(greeting);
  }
  if (!reason.empty()) {
    refuse(reason, "process " + std::to_string(greeting.rank));
    Frame no{.kind = FrameKind::refused};
    no.content.texts = {reason};
    answer(identity, std::move(no));
    return peers_.ban(identity);
  }
  peers_.admit(identity, greeting.rank);
  Greeting me = options_.me;
  me.details = listener_.details();
  answer(identity, {.kind = FrameKind::welcome, .content = pack_greeting(me)});
}

void Transport::Implementation::receive_known(int peer, zmq::socket_t& socket) {
  bool cut = false;
  while (auto parts = receive_parts(socket, options_.limits.tensors + 1, cut)) {
    if (cut) continue;
    const auto bytes = static_cast<std::int64_t>(bytes_of(*parts));
    {
      const std::lock_guard lock(mutex_);
      traffic_.received += bytes;
    }
    try {
      from_peer(peer, frame_of(std::move(*parts), 0, options_.limits), &socket);
    } catch (const std::exception& error) {
      refuse(error.what(), "process " + std::to_string(peer));
    }
  }
}

void Transport::Implementation::from_peer(int peer, Frame frame, zmq::socket_t* came_by) {
  if (peers_.identity_of(peer) != nullptr || peer == coordinator_rank) {
    if (peers_.heard(peer)) listener_.silent(peer, false);
  }
  switch (frame.kind) {
    case FrameKind::who:
      if (came_by != nullptr) say_hello(*came_by);
      return;
    case FrameKind::welcome:
      if (peer == coordinator_rank) listener_.welcomed(unpack_greeting(frame.content));
      return;
    case FrameKind::refused:
      listener_.turned_away(frame.content.texts.empty() ? "no reason given" : frame.content.texts.front());
      return;
    default:
      listener_.arrived(peer, std::move(frame));
  }
}

void Transport::Implementation::beat() {
  next_beat_ = Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(options_.beat_seconds));
  const Frame beat{.kind = FrameKind::beat, .content = listener_.beat()};
  if (is_coordinator()) {
    for (const int peer : peers_.ranks()) post({peer, parts_of(beat), {}});
  } else {
    post({coordinator_rank, parts_of(beat), {}});
  }
  for (const int peer : peers_.fallen_silent(options_.silence_seconds)) {
    if (is_coordinator() || peer == coordinator_rank) listener_.silent(peer, true);
  }
}

Transport::Transport(TransportOptions options, TransportListener& listener)
    : implementation_(std::make_unique<Implementation>(std::move(options), listener)) {}
Transport::~Transport() = default;
void Transport::start() {
  implementation_->start();
}
void Transport::send(int peer, Frame frame) {
  implementation_->send(peer, std::move(frame));
}
void Transport::know(int peer, const std::string& endpoint) {
  implementation_->know(peer, endpoint);
}
void Transport::ban(int peer, const std::string& reason) {
  implementation_->ban(peer, reason);
}
void Transport::flush(double seconds) {
  implementation_->flush(seconds);
}
const std::string& Transport::endpoint() const {
  return implementation_->endpoint();
}
Traffic Transport::traffic() const {
  return implementation_->traffic();
}
Refusals Transport::refusals() const {
  return implementation_->refusals();
}

}  // namespace rubato
