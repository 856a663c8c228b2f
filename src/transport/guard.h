#pragma once

#include <functional>
#include <memory>
#include <string>
#include <zmq.hpp>

#include "rubato/transport/credentials.h"

namespace rubato {

/// Answers ZeroMQ's questions about who may connect to sockets of `context` (ZAP, RFC 27), on a thread of its own. Over loopback
/// a peer must know the job's token (PLAIN); elsewhere it must hold the job's client key (CURVE, which also encrypts). One per
/// context; made before the first socket that accepts connections, destroyed before the context.
class Guard {
 public:
  /// `refused(address, reason)`: on the guard's thread, for each peer turned away.
  using Refused = std::function<void(const std::string& address, const std::string& reason)>;
  Guard(zmq::context_t& context, const Credentials& credentials, Refused refused);
  ~Guard();

 private:
  struct Implementation;
  std::unique_ptr<Implementation> implementation_;
};

/// Before `bind`: only peers with the job's credentials get through; half-open handshakes end after `handshake_ms`.
void protect(zmq::socket_t& socket, const Credentials& credentials, bool curve, int handshake_ms = 2000);
/// Before `connect`: shows the credentials.
void introduce(zmq::socket_t& socket, const Credentials& credentials, bool curve);

}  // namespace rubato
