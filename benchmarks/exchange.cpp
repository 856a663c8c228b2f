// How much of what bare ZeroMQ carries over loopback is left when whole frames travel between two transports: numbers of one run,
// turn by turn. Each round sends a tensor there and back.
//   bench_exchange [rounds] [mebibytes]
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <mutex>
#include <thread>
#include <vector>
#include <zmq.hpp>

#include "rubato/transport/transport.h"

namespace {

using namespace rubato;
using Clock = std::chrono::steady_clock;
constexpr int exchanges = 40;  // in a round
constexpr double wanted = 0.70;

double megabytes_per_second(std::size_t bytes, Clock::time_point begin) {
  const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  return 2.0 * static_cast<double>(bytes) * exchanges / seconds * 1e-6;
}

/// Sends every message back, or counts what comes back.
class End final : public TransportListener {
 public:
  void arrived(int peer, Frame frame) override {
    if (frame.kind != FrameKind::message) return;
    if (echo != nullptr) return echo->send(peer, std::move(frame));
    const std::lock_guard lock(mutex_);
    ++came_;
    changed_.notify_all();
  }
  std::string admit(const Greeting&) override { return ""; }
  void welcomed(const Greeting&) override {
    const std::lock_guard lock(mutex_);
    welcome_ = true;
    changed_.notify_all();
  }
  void turned_away(const std::string& reason) override {
    fmt::print(stderr, "{}\n", reason);
    std::exit(1);
  }
  void silent(int, bool) override {}
  Packed details() override { return {}; }
  Packed beat() override { return {}; }

  void wait_for(int count) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return came_ >= count; });
  }
  void wait_for_welcome() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return welcome_; });
  }
  Transport* echo = nullptr;

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int came_ = 0;
  bool welcome_ = false;
};

double with_transports(std::size_t bytes) {
  const Credentials credentials = make_credentials();
  End coordinator_end, worker_end;
  Transport coordinator({.me = {.rank = coordinator_rank}, .bind = "tcp://127.0.0.1:*", .credentials = credentials},
                        coordinator_end);
  coordinator_end.echo = &coordinator;
  coordinator.start();
  Transport worker(
      {.me = {.rank = 0}, .bind = "tcp://127.0.0.1:*", .coordinator = coordinator.endpoint(), .credentials = credentials},
      worker_end);
  worker.start();
  worker_end.wait_for_welcome();
  const auto weights = std::make_shared<const std::vector<char>>(bytes);
  const auto begin = Clock::now();
  for (int i = 0; i < exchanges; ++i) {
    Frame frame{.kind = FrameKind::message, .about = "requests"};
    frame.content.tensors.push_back({0, {static_cast<std::int64_t>(bytes)}, {weights, weights->data(), bytes}});
    worker.send(coordinator_rank, std::move(frame));
    worker_end.wait_for(i + 1);
  }
  return megabytes_per_second(bytes, begin);
}

double with_bare_zeromq(std::size_t bytes) {
  zmq::context_t there, here;
  zmq::socket_t router(there, zmq::socket_type::router), dealer(here, zmq::socket_type::dealer);
  router.bind("tcp://127.0.0.1:*");
  dealer.connect(router.get(zmq::sockopt::last_endpoint));
  std::thread echo([&] {
    for (int i = 0; i <= exchanges; ++i) {
      zmq::message_t identity, content;
      if (!router.recv(identity) || !router.recv(content)) return;
      router.send(identity, zmq::send_flags::sndmore);
      router.send(content, zmq::send_flags::none);
    }
  });
  std::vector<char> weights(bytes);
  const auto exchange = [&] {
    zmq::message_t content(
        weights.data(), bytes, [](void*, void*) {}, nullptr),
        back;
    dealer.send(content, zmq::send_flags::none);
    return dealer.recv(back).has_value();
  };
  exchange();  // connects
  const auto begin = Clock::now();
  for (int i = 0; i < exchanges; ++i) exchange();
  const double rate = megabytes_per_second(bytes, begin);
  echo.join();
  return rate;
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

}  // namespace

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 7;
  const auto bytes = static_cast<std::size_t>(argc > 2 ? std::atof(argv[2]) * (1 << 20) : 4 << 20);
  std::vector<double> bare, transports, ratios;
  for (int round = 0; round < rounds; ++round) {
    bare.push_back(with_bare_zeromq(bytes));
    transports.push_back(with_transports(bytes));
    ratios.push_back(transports.back() / bare.back());
  }
  fmt::print("{} rounds of {} exchanges of {:.1f} MiB there and back over loopback, medians\n", rounds, exchanges,
             static_cast<double>(bytes) / (1 << 20));
  fmt::print("bare ZeroMQ   {:7.0f} MB/s\ntransports    {:7.0f} MB/s\nratio         {:7.2f}  wanted {:.2f}\n", median(bare),
             median(transports), median(ratios), wanted);
  return median(ratios) >= wanted ? 0 : 1;
}
