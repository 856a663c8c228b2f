#pragma once

#include <string>

namespace rubato {

/// UsageError unless `address` is an IPv4 address that others can be told to connect to; with `remote` hosts not a loopback one.
void check_listen_address(const std::string& address, bool remote);

/// A TCP port that nobody listens at on `address` now. UsageError when the address is none of this machine's.
int free_port(const std::string& address);

}  // namespace rubato
