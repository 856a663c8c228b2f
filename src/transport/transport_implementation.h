#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <zmq.hpp>

#include "rubato/transport/transport.h"
#include "transport/guard.h"
#include "transport/monitor.h"
#include "transport/peers.h"
#include "transport/sockets.h"

namespace rubato {

// Thread rules
//  * All sockets, `dealers_` and `peers_` belong to the transport's thread. Others hand frames over through `outbox_` and wake it.
//  * Before `start` they belong to whoever calls it. The transport's thread takes no signal, and no exception leaves it.
//  * `mutex_` guards the outbox, the counts and the requests to know or to ban; it is never held while the listener is called.

class Transport::Implementation {
 public:
  Implementation(TransportOptions options, TransportListener& listener);
  ~Implementation();
  void start() {
    if (!is_coordinator()) dealer(coordinator_rank, options_.coordinator);  // what fails here is told to the caller
    thread_ = std::jthread([this](const std::stop_token& stop) { run(stop); });
  }
  void send(int peer, Frame frame);
  void know(int peer, const std::string& endpoint);
  void ban(int peer, const std::string& reason);
  void flush(double seconds);
  const std::string& endpoint() const { return options_.me.endpoint; }
  Traffic traffic() const;
  Refusals refusals() const;

 private:
  using Clock = std::chrono::steady_clock;
  struct Letter {
    int peer;
    Parts parts;
    Clock::time_point due;
  };
  struct Request {
    int peer;
    std::string endpoint, ban;
  };

  bool is_coordinator() const { return options_.coordinator.empty(); }
  void configure(zmq::socket_t& socket) const;
  void run(const std::stop_token& stop);
  void turn();
  void wait();
  void work_off();
  /// Nothing that a peer has named ends this process: where no connection can be made the letter is lost, and that is noted.
  void post(Letter letter);
  void deliver(Letter letter);
  zmq::socket_t& dealer(int peer, const std::string& endpoint);
  void say_hello(zmq::socket_t& socket);
  void receive_strangers();
  void receive_known(int peer, zmq::socket_t& socket);
  void from_router(Parts parts);
  void answer(const std::string& identity, Frame frame);
  void hello(const std::string& identity, const Frame& frame);
  void from_peer(int peer, Frame frame, zmq::socket_t* came_by);
  void beat();
  void refuse(const std::string& reason, const std::string& detail);
  void wake() const;

  TransportOptions options_;
  TransportListener& listener_;
  zmq::context_t context_;
  std::unique_ptr<Guard> guard_;
  zmq::socket_t router_;
  std::unique_ptr<Monitor> monitor_;
  std::map<int, zmq::socket_t> dealers_;
  std::map<int, std::string> endpoints_;
  Peers peers_;
  Clock::time_point next_beat_ = Clock::now();
  int wake_fd_;

  mutable std::mutex mutex_;
  std::condition_variable emptied_;
  std::deque<Letter> outbox_;
  std::deque<Request> requests_;
  Traffic traffic_;
  Refusals refusals_;
  std::jthread thread_;
};

}  // namespace rubato
