#include "launch/address.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstdint>
#include <cstring>

#include "rubato/core/error.h"
#include "rubato/io/descriptor.h"

namespace rubato {
namespace {

in_addr parsed(const std::string& address) {
  in_addr binary{};
  if (inet_pton(AF_INET, address.c_str(), &binary) != 1) {
    throw UsageError("--listen '" + address + "' is no IPv4 address, for example 127.0.0.1");
  }
  return binary;
}

}  // namespace

void check_listen_address(const std::string& address, bool remote) {
  const std::uint32_t number = ntohl(parsed(address).s_addr);
  if (number == INADDR_ANY) {
    throw UsageError(
        "--listen 0.0.0.0 names no address that a worker could connect to: give the one at which the hosts reach "
        "this machine");
  }
  if (remote && number >> 24 == IN_LOOPBACKNET) {
    throw UsageError("--listen " + address +
                     " cannot be reached from other hosts: give the address at which the hosts of "
                     "--hosts reach this machine");
  }
}

int free_port(const std::string& address) {
  sockaddr_in name{};
  name.sin_family = AF_INET;
  name.sin_addr = parsed(address);
  socklen_t size = sizeof name;
  const Descriptor listener(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!listener.open() || bind(listener.number(), reinterpret_cast<sockaddr*>(&name), size) != 0 ||
      getsockname(listener.number(), reinterpret_cast<sockaddr*>(&name), &size) != 0) {
    throw UsageError("--listen " + address + ": " + std::strerror(errno) + "; give an address of this machine");
  }
  return ntohs(name.sin_port);
}

}  // namespace rubato
