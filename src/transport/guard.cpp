#include "transport/guard.h"

#include <fmt/format.h>

#include <array>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "rubato/core/error.h"
#include "rubato/core/threads.h"

namespace rubato {
namespace {

constexpr const char* requests_address = "inproc://zeromq.zap.01";
constexpr const char* end_address = "inproc://rubato.guard.end";
constexpr std::string_view zap_version = "1.0";
constexpr std::string_view user_name = "rubato";
constexpr std::size_t key_bytes = 32;
constexpr int zap_enforce_domain = 93;  // ZMQ_ZAP_ENFORCE_DOMAIN, which releases of ZeroMQ know but do not declare

using Frames = std::vector<std::string>;

/// Takes as long wherever the first difference is.
bool equal_secrets(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  volatile unsigned char difference = 0;
  for (std::size_t i = 0; i < a.size(); ++i) difference = difference | static_cast<unsigned char>(a[i] ^ b[i]);
  return difference == 0;
}

std::string raw_key(const std::string& z85) {
  std::array<std::uint8_t, key_bytes> key{};
  if (z85.size() != key_bytes * 5 / 4 || !zmq_z85_decode(key.data(), z85.c_str())) {
    throw DataError("the job's credentials hold no CURVE key: make new ones");
  }
  return {key.begin(), key.end()};
}

/// A question of ZAP (RFC 27), as far as it is well-formed.
struct Question {
  explicit Question(const Frames& frames) {
    if (frames.size() > 1) id = frames[1];
    if (frames.size() < 6 || frames[0] != zap_version) return;
    address = frames[3];
    mechanism = frames[5];
    shown.assign(frames.begin() + 6, frames.end());
    well_formed = true;
  }
  bool well_formed = false;
  std::string id, address, mechanism;
  Frames shown;
};

struct Answer {
  const char* status;
  std::string text;
};

Answer judge(const Question& question, const std::string& token, const std::string& client_key) {
  if (!question.well_formed) return {"500", "malformed request"};
  if (question.mechanism == "PLAIN") {
    if (question.shown.size() != 2) return {"500", "malformed request"};
    const bool known = question.shown[0] == user_name && equal_secrets(question.shown[1], token);
    return known ? Answer{"200", "OK"} : Answer{"400", "not the token of this job"};
  }
  if (question.mechanism == "CURVE") {
    if (question.shown.size() != 1) return {"500", "malformed request"};
    return equal_secrets(question.shown[0], client_key) ? Answer{"200", "OK"} : Answer{"400", "not the key of this job"};
  }
  return {"400", fmt::format("mechanism {} shows no credentials", question.mechanism)};
}

/// Empty when there was only something without the envelope of a request, which ZeroMQ drops.
Frames receive(zmq::socket_t& socket) {
  Frames frames;
  zmq::message_t frame;
  do {
    if (!socket.recv(frame, zmq::recv_flags::dontwait)) break;
    frames.push_back(frame.to_string());
  } while (frame.more());
  return frames;
}

void send(zmq::socket_t& socket, const Frames& frames) {
  for (const std::string& frame : frames) {
    const bool last = &frame == &frames.back();
    socket.send(zmq::buffer(frame), last ? zmq::send_flags::none : zmq::send_flags::sndmore);
  }
}

zmq::socket_t lingerless(zmq::context_t& context, zmq::socket_type type) {
  zmq::socket_t socket(context, type);
  socket.set(zmq::sockopt::linger, 0);
  return socket;
}

/// Without a guard CURVE would let in whoever knows the server's key. A ZeroMQ that lacks the option is as safe while a guard
/// lives.
void refuse_without_guard(zmq::socket_t& socket) {
  const int enforce = 1;
  zmq_setsockopt(socket.handle(), zap_enforce_domain, &enforce, sizeof enforce);
}

}  // namespace

struct Guard::Implementation {
  Implementation(zmq::context_t& context, const Credentials& credentials, Refused listener)
      : token(credentials.token),
        client_key(raw_key(credentials.client_public)),
        refused(std::move(listener)),
        questions(lingerless(context, zmq::socket_type::rep)),
        ending(lingerless(context, zmq::socket_type::pair)),
        end(lingerless(context, zmq::socket_type::pair)) {
    // Whoever connects before somebody listens here is let in or turned away unasked.
    questions.bind(requests_address);
    ending.bind(end_address);
    end.connect(end_address);
    const SignalsBlocked in_the_thread;
    thread = std::thread([this] { serve(); });
  }

  ~Implementation() {
    // An error means that the context is being ended, which ends the thread as well.
    zmq_send(end.handle(), "", 0, ZMQ_DONTWAIT);
    thread.join();
    // Closing gives the addresses back later, this at once: for the next guard.
    zmq_unbind(questions.handle(), requests_address);
    zmq_unbind(ending.handle(), end_address);
  }

  void serve() {
    try {
      while (answer_next()) continue;
    } catch (const zmq::error_t&) {
      // The context is being ended.
    }
  }

  /// False when the thread shall end.
  bool answer_next() {
    std::array<zmq::pollitem_t, 2> items{{{questions.handle(), 0, ZMQ_POLLIN, 0}, {ending.handle(), 0, ZMQ_POLLIN, 0}}};
    zmq::poll(items.data(), items.size(), std::chrono::milliseconds(-1));
    if (items[1].revents) return false;
    if (!items[0].revents) return true;
    const Frames frames = receive(questions);
    if (frames.empty()) return true;
    const Question question(frames);
    const Answer answer = judge(question, token, client_key);
    const bool accepted = std::string_view(answer.status) == "200";
    const std::string user(accepted ? user_name : std::string_view());
    send(questions, {std::string(zap_version), question.id, answer.status, answer.text, user, ""});
    if (!accepted && refused) refused(question.address, answer.text);
    return true;
  }

  const std::string token, client_key;
  const Refused refused;
  zmq::socket_t questions;
  zmq::socket_t ending, end;  ///< two ends of a pipe; what arrives at the first ends the thread
  std::thread thread;
};

Guard::Guard(zmq::context_t& context, const Credentials& credentials, Refused refused)
    : implementation_(std::make_unique<Implementation>(context, credentials, std::move(refused))) {}

Guard::~Guard() = default;

void protect(zmq::socket_t& socket, const Credentials& credentials, bool curve, int handshake_ms) {
  if (curve) {
    socket.set(zmq::sockopt::curve_server, true);
    socket.set(zmq::sockopt::curve_secretkey, credentials.server_secret);
  } else {
    socket.set(zmq::sockopt::plain_server, true);
  }
  socket.set(zmq::sockopt::zap_domain, "rubato");
  refuse_without_guard(socket);
  socket.set(zmq::sockopt::handshake_ivl, handshake_ms);
  socket.set(zmq::sockopt::linger, 0);
}

void introduce(zmq::socket_t& socket, const Credentials& credentials, bool curve) {
  if (curve) {
    socket.set(zmq::sockopt::curve_serverkey, credentials.server_public);
    socket.set(zmq::sockopt::curve_publickey, credentials.client_public);
    socket.set(zmq::sockopt::curve_secretkey, credentials.client_secret);
  } else {
    socket.set(zmq::sockopt::plain_username, std::string(user_name));
    socket.set(zmq::sockopt::plain_password, credentials.token);
  }
}

}  // namespace rubato
