#pragma once

#include <filesystem>
#include <string>

namespace rubato {

/// What the processes of one job know and nobody else: made anew for each job, readable by its owner alone.
struct Credentials {
  std::string token;                         ///< 64 hexadecimal digits; on loopback it is the password of every connection
  std::string server_public, server_secret;  ///< Z85; CURVE keys of whoever accepts connections
  std::string client_public, client_secret;  ///< Z85; of whoever connects
  bool operator==(const Credentials&) const = default;
};

/// From the system's source of random numbers.
Credentials make_credentials();

std::string to_text(const Credentials& credentials);
/// DataError naming `source` when the text is not what `to_text` writes.
Credentials credentials_from_text(const std::string& text, const std::string& source);

/// Writes a new file with mode 0600. DataError when it exists or cannot be written.
void write_credentials(const std::filesystem::path& file, const Credentials& credentials);
/// DataError when it cannot be read, is malformed, is not this user's, or can be read or written by others.
Credentials read_credentials(const std::filesystem::path& file);

}  // namespace rubato
