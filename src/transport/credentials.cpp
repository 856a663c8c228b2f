#include "rubato/transport/credentials.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <system_error>
#include <tuple>
#include <utility>

#include "rubato/core/error.h"

namespace rubato {
namespace {

constexpr std::size_t token_digits = 64, key_digits = 40;
constexpr std::size_t most_file_bytes = 4096;  // several times what `to_text` writes

using Field = std::pair<const char*, std::string Credentials::*>;
constexpr std::array<Field, 5> fields{{{"token", &Credentials::token},
                                       {"server_public", &Credentials::server_public},
                                       {"server_secret", &Credentials::server_secret},
                                       {"client_public", &Credentials::client_public},
                                       {"client_secret", &Credentials::client_secret}}};

std::string error_text() {
  return std::generic_category().message(errno);
}

std::string random_token() {
  std::array<unsigned char, token_digits / 2> bytes{};
  // Requests of up to 256 bytes are never cut short once the source is ready; before, a signal may interrupt.
  while (getrandom(bytes.data(), bytes.size(), 0) != static_cast<ssize_t>(bytes.size())) {
    if (errno != EINTR) throw DataError("cannot read the system's source of random numbers: " + error_text());
  }
  std::string token;
  for (const unsigned char byte : bytes) token += fmt::format("{:02x}", byte);
  return token;
}

std::pair<std::string, std::string> random_keys() {
  std::array<char, key_digits + 1> public_key{}, secret_key{};
  if (zmq_curve_keypair(public_key.data(), secret_key.data()) != 0) {
    throw DataError("the installed ZeroMQ cannot make CURVE keys: install one that was built with libsodium");
  }
  return {public_key.data(), secret_key.data()};
}

bool is_token(const std::string& text) {
  const auto is_digit = [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); };
  return text.size() == token_digits && std::ranges::all_of(text, is_digit);
}

bool are_keys(const std::string& public_key, const std::string& secret_key) {
  std::array<std::uint8_t, 32> raw{};
  std::array<char, key_digits + 1> derived{};
  return public_key.size() == key_digits && secret_key.size() == key_digits && zmq_z85_decode(raw.data(), secret_key.c_str()) &&
         zmq_curve_public(derived.data(), secret_key.c_str()) == 0 && public_key == derived.data();
}

/// A file descriptor, closed when it goes.
class Descriptor {
 public:
  explicit Descriptor(int number) : number_(number) {}
  ~Descriptor() {
    if (number_ >= 0) ::close(number_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int operator*() const { return number_; }
  /// False when the system reports only now that something was not written.
  bool close() { return ::close(std::exchange(number_, -1)) == 0; }

 private:
  int number_;
};

bool write_all(int descriptor, const std::string& text) {
  std::size_t written = 0;
  while (written < text.size()) {
    const ssize_t now = ::write(descriptor, text.data() + written, text.size() - written);
    if (now < 0 && errno != EINTR) return false;
    if (now > 0) written += static_cast<std::size_t>(now);
  }
  return true;
}

void check_private(int descriptor, const std::string& name) {
  struct stat status {};
  if (fstat(descriptor, &status) != 0) throw DataError(fmt::format("cannot read {}: {}", name, error_text()));
  if (!S_ISREG(status.st_mode)) throw DataError(name + " is not a file: name the file of the job's credentials");
  if (status.st_uid != geteuid()) throw DataError(name + " belongs to another user: take the credentials of a job of your own");
  if (status.st_mode & (S_IRWXG | S_IRWXO)) {
    throw DataError(fmt::format("{} can be used by other users: make new credentials, with mode 0600", name));
  }
}

/// At most one byte more than credentials have.
std::string read_start(int descriptor, const std::string& name) {
  std::string text(most_file_bytes + 1, 0);
  std::size_t have = 0;
  while (have < text.size()) {
    const ssize_t now = ::read(descriptor, text.data() + have, text.size() - have);
    if (now < 0 && errno == EINTR) continue;
    if (now < 0) throw DataError(fmt::format("cannot read {}: {}", name, error_text()));
    if (now == 0) break;
    have += static_cast<std::size_t>(now);
  }
  text.resize(have);
  return text;
}

}  // namespace

Credentials make_credentials() {
  Credentials made;
  made.token = random_token();
  std::tie(made.server_public, made.server_secret) = random_keys();
  std::tie(made.client_public, made.client_secret) = random_keys();
  return made;
}

std::string to_text(const Credentials& credentials) {
  nlohmann::ordered_json text;
  for (const auto& [name, member] : fields) text[name] = credentials.*member;
  return text.dump(2) + "\n";
}

Credentials credentials_from_text(const std::string& text, const std::string& source) {
  // The sentence does not quote the text: it may hold secrets.
  const DataError malformed(source + " does not hold the credentials of a job: start the job anew to make some");
  if (text.size() > most_file_bytes) throw malformed;
  const auto json = nlohmann::json::parse(text, nullptr, false);
  if (!json.is_object() || json.size() != fields.size()) throw malformed;
  Credentials read;
  for (const auto& [name, member] : fields) {
    const auto found = json.find(name);
    if (found == json.end() || !found->is_string()) throw malformed;
    read.*member = found->get<std::string>();
  }
  const bool sound = is_token(read.token) && are_keys(read.server_public, read.server_secret) &&
                     are_keys(read.client_public, read.client_secret);
  if (!sound) throw malformed;
  return read;
}

void write_credentials(const std::filesystem::path& file, const Credentials& credentials) {
  const auto fail = [&] { throw DataError(fmt::format("cannot write {}: {}", file.string(), error_text())); };
  Descriptor opened(::open(file.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, S_IRUSR | S_IWUSR));
  if (*opened < 0 && errno == EEXIST) {
    throw DataError(file.string() +
                    ": a file of that name is there, and a job may use its keys: name another, or remove it first");
  }
  if (*opened < 0) fail();
  // The mode of `open` is less what the umask takes away.
  if (fchmod(*opened, S_IRUSR | S_IWUSR) == 0 && write_all(*opened, to_text(credentials)) && opened.close()) return;
  const int reason = errno;
  ::unlink(file.c_str());
  errno = reason;
  fail();
}

Credentials read_credentials(const std::filesystem::path& file) {
  // Without O_NONBLOCK a named pipe would keep the process waiting for a writer.
  const Descriptor opened(::open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (*opened < 0) throw DataError(fmt::format("cannot read {}: {}", file.string(), error_text()));
  check_private(*opened, file.string());
  return credentials_from_text(read_start(*opened, file.string()), file.string());
}

}  // namespace rubato
