#include "train/metrics_page.h"

#include <fmt/format.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <vector>

#include "rubato/core/error.h"
#include "train/bounded_stream.h"

namespace rubato {
namespace {

constexpr int workers = 2;
constexpr int backlog = 64;               // connections that the kernel keeps for us; httplib's 5 are soon full
constexpr std::size_t most_waiting = 16;  // connections; more stay with the kernel, so that they use up no descriptors

/// A few threads, and a short queue that lets whoever accepts connections wait.
class ShortQueue final : public httplib::TaskQueue {
 public:
  ShortQueue() {
    for (int i = 0; i < workers; ++i) threads_.emplace_back([this] { work(); });
  }
  void enqueue(std::function<void()> task) override {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return tasks_.size() < most_waiting; });
    tasks_.push_back(std::move(task));
    changed_.notify_all();
  }
  void shutdown() override {
    {
      const std::lock_guard lock(mutex_);
      ended_ = true;
    }
    changed_.notify_all();
    threads_.clear();
  }

 private:
  void work() {
    std::unique_lock lock(mutex_);
    while (true) {
      changed_.wait(lock, [&] { return ended_ || !tasks_.empty(); });
      if (tasks_.empty()) return;
      const std::function<void()> task = std::move(tasks_.front());
      tasks_.pop_front();
      changed_.notify_all();
      lock.unlock();
      task();
      lock.lock();
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> tasks_;
  bool ended_ = false;
  std::vector<std::jthread> threads_;
};

/// httplib's own choice, SO_REUSEPORT, would let two pages share a port and each see half of the requests.
void allow_quick_restart(socket_t socket) {
  const int yes = 1;
  ::setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
}

/// Many small ranges of one text would make a large answer.
void forget_ranges(httplib::Request& request) {
  request.ranges.clear();
  request.headers.erase("Range");
}

}  // namespace

class MetricsPage::Server final : public httplib::Server {
 public:
  Server(const std::string& address, int port, Text text) : text_(std::move(text)) {
    const auto answer = [this](const httplib::Request&, httplib::Response& response) {
      const std::lock_guard lock(text_mutex_);
      response.set_content(text_(), "text/plain; version=0.0.4; charset=utf-8");
    };
    Get("/", answer);
    Get("/metrics", answer);
    set_socket_options(allow_quick_restart);
    new_task_queue = [] { return new ShortQueue; };
    port_ = listen_at(address, port);
    thread_ = std::thread([this] {
      listen_after_bind();
      ended_ = true;
    });
    while (!is_running() && !ended_) std::this_thread::yield();  // `stop` does nothing before
  }
  ~Server() override {
    stopped_ = true;
    stop();
    thread_.join();
  }
  int port() const { return port_; }

 private:
  int listen_at(const std::string& address, int port) {
    if (port < 0 || port > 65535) {
      throw UsageError(fmt::format("cannot serve metrics at {}:{}: a port lies between 0 and 65535", address, port));
    }
    int bound = -1;
    if (!address.empty()) bound = port == 0 ? bind_to_any_port(address) : bind_to_port(address, port) ? port : -1;
    if (bound > 0 && ::listen(svr_sock_, backlog) == 0) return bound;
    throw UsageError(
        fmt::format("cannot serve metrics at {}:{}: the port is taken or not allowed, or the address is not one of this machine; "
                    "use another, or port 0 for a free one",
                    address, port));
  }

  bool process_and_close_socket(socket_t socket) override {
    bool closed = false, good = false;
    try {
      BoundedStream stream(socket, stopped_);
      good = process_request(stream, true, closed, forget_ranges);
    } catch (const std::exception&) {  // one bad connection must not end the process
    }
    ::shutdown(socket, SHUT_RDWR);
    ::close(socket);
    return good;
  }

  Text text_;
  std::mutex text_mutex_;
  int port_ = 0;
  std::atomic<bool> stopped_ = false, ended_ = false;
  std::thread thread_;
};

MetricsPage::MetricsPage(const std::string& address, int port, Text text)
    : server_(std::make_unique<Server>(address, port, std::move(text))) {}

MetricsPage::~MetricsPage() = default;

int MetricsPage::port() const {
  return server_->port();
}

}  // namespace rubato
