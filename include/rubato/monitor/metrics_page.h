#pragma once

#include <functional>
#include <memory>
#include <string>

namespace rubato {

/// Answers GET /metrics and GET / over HTTP with a text, on a thread of its own, until it is destroyed. Made for strangers on the
/// network: requests are small and short-lived, or they are dropped; whatever comes in changes nothing and delays nobody's end.
class MetricsPage {
 public:
  using Text = std::function<std::string()>;
  /// `text` is called on another thread, for one request at a time. Port 0: a free one. UsageError naming address and port when
  /// they cannot be had.
  MetricsPage(const std::string& address, int port, Text text);
  ~MetricsPage();
  MetricsPage(const MetricsPage&) = delete;
  MetricsPage& operator=(const MetricsPage&) = delete;

  int port() const;

 private:
  class Server;
  std::unique_ptr<Server> server_;
};

}  // namespace rubato
