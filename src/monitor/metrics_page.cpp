#include "rubato/monitor/metrics_page.h"

#include <fmt/format.h>
#include <microhttpd.h>
#include <netdb.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <thread>

#include "rubato/core/error.h"

namespace rubato {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds tick{50};   // between two looks at deadlines and the end
constexpr std::chrono::milliseconds pause{1};   // after a round: out of descriptors, the library would not wait at all
constexpr std::chrono::seconds time_limit{3};   // of a connection, whatever it does
constexpr std::size_t header_limit = 16 << 10;  // bytes of request line and headers, with what the library keeps about them
constexpr std::size_t body_limit = 16 << 10;    // bytes of a request
constexpr unsigned backlog = 64;                // connections that the kernel keeps for us
constexpr unsigned most_connections = 32;       // more stay with the kernel, so that they use up no descriptors

struct Answer {
  unsigned status;
  std::string body;
};

using Daemon = std::unique_ptr<MHD_Daemon, decltype(&MHD_stop_daemon)>;
using Addresses = std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)>;

Addresses addresses_of(const std::string& name, int port) {
  addrinfo wanted{};
  wanted.ai_family = AF_UNSPEC;
  wanted.ai_socktype = SOCK_STREAM;
  wanted.ai_flags = AI_NUMERICSERV;
  addrinfo* found = nullptr;
  if (::getaddrinfo(name.c_str(), std::to_string(port).c_str(), &wanted, &found) != 0) found = nullptr;
  return {found, &::freeaddrinfo};
}

}  // namespace

/// One thread runs libmicrohttpd's event loop, so that slow clients hold no thread. The library bounds the memory and the number
/// of connections; it knows only a limit of silence, though, and whoever sends a byte now and then is never silent. So we keep
/// the sockets and shut down those whose time is over, between two rounds of the loop, on its thread.
class MetricsPage::Server {
  struct Connection {
    int socket = -1;  ///< -1: nobody's
    Clock::time_point deadline;
    std::size_t body_left = 0;  ///< bytes that may still come
  };

 public:
  Server(const std::string& address, int port, Text text) : text_(std::move(text)), daemon_(listen_at(address, port)) {
    thread_ = std::thread([this] { run(); });
  }
  ~Server() {
    stopped_ = true;
    thread_.join();
  }
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  int port() const { return MHD_get_daemon_info(daemon_.get(), MHD_DAEMON_INFO_BIND_PORT)->port; }

 private:
  Daemon listen_at(const std::string& address, int port) {
    if (port < 0 || port > 65535) {
      throw UsageError(fmt::format("cannot serve metrics at {}:{}: a port lies between 0 and 65535", address, port));
    }
    const Addresses all = address.empty() ? Addresses(nullptr, &::freeaddrinfo) : addresses_of(address, port);
    for (const addrinfo* one = all.get(); one != nullptr; one = one->ai_next) {
      if (Daemon daemon = start(*one, port)) return daemon;
    }
    throw UsageError(
        fmt::format("cannot serve metrics at {}:{}: the port is taken or not allowed, or the address is not one of this machine; "
                    "use another, or port 0 for a free one",
                    address, port));
  }

  /// Null when the address cannot be had. The library sets SO_REUSEADDR, so that a page can follow another at once, and not
  /// SO_REUSEPORT, which would let two pages share a port and each see half of the requests.
  Daemon start(const addrinfo& address, int port) {
    const unsigned family = address.ai_family == AF_INET6 ? MHD_USE_DUAL_STACK : MHD_NO_FLAG;
    const MHD_NotifyConnectionCallback notify = &Server::on_connection;
    void* const self = this;
    return {MHD_start_daemon(MHD_USE_EPOLL | family, static_cast<std::uint16_t>(port), nullptr, nullptr, &Server::on_request,
                             self, MHD_OPTION_SOCK_ADDR, address.ai_addr, MHD_OPTION_LISTEN_BACKLOG_SIZE, backlog,
                             MHD_OPTION_CONNECTION_LIMIT, most_connections, MHD_OPTION_CONNECTION_MEMORY_LIMIT, header_limit,
                             MHD_OPTION_NOTIFY_CONNECTION, notify, self, MHD_OPTION_END),
            &MHD_stop_daemon};
  }

  void run() {
    while (!stopped_) {
      MHD_run_wait(daemon_.get(), static_cast<std::int32_t>(tick.count()));
      std::this_thread::sleep_for(pause);
      const auto now = Clock::now();
      for (const Connection& connection : connections_) {
        if (connection.socket != -1 && connection.deadline < now) ::shutdown(connection.socket, SHUT_RDWR);
      }
    }
  }

  // What the library calls, on the thread of `run` or of the destructor. No exception may leave these.

  static void on_connection(void* self, MHD_Connection* handle, void** context, MHD_ConnectionNotificationCode what) noexcept {
    auto& connections = static_cast<Server*>(self)->connections_;
    if (what == MHD_CONNECTION_NOTIFY_STARTED) {
      const int socket = MHD_get_connection_info(handle, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
      const auto unused = std::ranges::find(connections, -1, &Connection::socket);
      if (unused == connections.end()) {  // more than we have asked for
        ::shutdown(socket, SHUT_RDWR);
        return;
      }
      *unused = {socket, Clock::now() + time_limit, body_limit};
      *context = &*unused;
    } else if (*context != nullptr) {
      static_cast<Connection*>(*context)->socket = -1;
    }
  }

  static MHD_Result on_request(void* self, MHD_Connection* handle, const char* path, const char* method, const char* /*version*/,
                               const char* /*body*/, std::size_t* body_size, void** state) noexcept {
    auto* connection =
        static_cast<Connection*>(MHD_get_connection_info(handle, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context);
    if (connection == nullptr) return MHD_NO;
    if (*state == nullptr) {  // headers only; the body comes with calls of its own, and a last one follows
      *state = connection;
      return MHD_YES;
    }
    if (*body_size > connection->body_left) return MHD_NO;
    if (*body_size > 0) {
      connection->body_left -= *body_size;
      *body_size = 0;
      return MHD_YES;
    }
    return send(handle, static_cast<Server*>(self)->answer(path, method));
  }

  Answer answer(std::string_view path, std::string_view method) const noexcept {
    if ((method != MHD_HTTP_METHOD_GET && method != MHD_HTTP_METHOD_HEAD) || (path != "/" && path != "/metrics")) {
      return {MHD_HTTP_NOT_FOUND, "not found\n"};
    }
    try {
      return {MHD_HTTP_OK, text_()};
    } catch (...) {  // strangers are not told why
      return {MHD_HTTP_INTERNAL_SERVER_ERROR, "failed\n"};
    }
  }

  /// Always the whole text, whatever ranges were asked for, and the end of the connection.
  static MHD_Result send(MHD_Connection* handle, Answer answer) noexcept {
    MHD_Response* response = MHD_create_response_from_buffer(answer.body.size(), answer.body.data(), MHD_RESPMEM_MUST_COPY);
    if (response == nullptr) return MHD_NO;
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8");
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONNECTION, "close");
    const MHD_Result queued = MHD_queue_response(handle, answer.status, response);
    MHD_destroy_response(response);  // what is queued holds it
    return queued;
  }

  Text text_;
  std::array<Connection, most_connections> connections_;
  std::atomic<bool> stopped_ = false;
  Daemon daemon_;  ///< its end closes all connections
  std::thread thread_;
};

MetricsPage::MetricsPage(const std::string& address, int port, Text text)
    : server_(std::make_unique<Server>(address, port, std::move(text))) {}

MetricsPage::~MetricsPage() = default;

int MetricsPage::port() const {
  return server_->port();
}

}  // namespace rubato
