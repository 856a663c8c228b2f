#include "app/raw_attacks.h"

#include <arpa/inet.h>

#include <cstdint>

#include "transport/random_frames.h"

namespace rubato::test {
namespace {

using namespace std::string_literals;

std::string with_length(const std::string& text) {
  return static_cast<char>(text.size()) + text;
}

/// A command of ZMTP of fewer than 256 bytes.
std::string command(const std::string& name, const std::string& content) {
  return "\x04"s + with_length(with_length(name) + content);
}

std::string plain_hello(const std::string& token) {
  return command("HELLO", with_length("rubato") + with_length(token));
}

std::string initiate() {
  return command("INITIATE", with_length("Socket-Type") + "\0\0\0\x06"s + "DEALER");
}

/// The head of a frame of ZMTP with an eight-byte length.
std::string long_frame(char flags, std::uint64_t claimed) {
  std::string head(1, flags);
  for (int shift = 56; shift >= 0; shift -= 8) head += static_cast<char>(claimed >> shift);
  return head;
}

}  // namespace

RawConnection::RawConnection(int port) : descriptor_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  connected_ = ::connect(descriptor_, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
}

std::string zmtp_greeting(const std::string& mechanism) {
  std::string text = "\xff\0\0\0\0\0\0\0\x01\x7f\x03\0"s + mechanism;
  text.resize(64, 0);
  return text;
}

RawSpeech raw_speech(int number, const std::string& token) {
  Dice dice(static_cast<std::uint64_t>(number));
  const std::string noise = dice.bytes(1 + dice.below(3000));
  switch (number % 12) {
    case 0:
      return {noise};
    case 1:
      return {"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"};
    case 2:
      return {};
    case 3:
      return {zmtp_greeting("PLAIN"), noise};
    case 4:
      return {zmtp_greeting("PLAIN").substr(0, dice.below(64))};
    case 5:
      return {zmtp_greeting("NULL"), command("READY", with_length("Socket-Type") + "\0\0\0\x06"s + "DEALER")};
    case 6:
      return {zmtp_greeting("CURVE"), command("HELLO", dice.bytes(194))};
    case 7:  // more than anybody has
      return {zmtp_greeting("PLAIN"), long_frame(6, ~std::uint64_t{0} >> 1), noise};
    case 8:  // as much as is taken: a length that never comes
      return {zmtp_greeting("PLAIN"), long_frame(6, 1 << 22), noise};
    case 9:  // the right token, and then nobody who goes on
      return {zmtp_greeting("PLAIN"), plain_hello(token)};
    case 10:  // a member of no job, who claims a message of two exabytes
      return {zmtp_greeting("PLAIN"), plain_hello(token), initiate(), long_frame(2, std::uint64_t{1} << 61), noise};
    default:  // a first part without the others
      return {zmtp_greeting("PLAIN"), plain_hello(token), initiate(), "\x01\x04"s + "part"};
  }
}

}  // namespace rubato::test
