#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "transport/guard_fixture.h"
#include "transport/random_frames.h"

namespace rubato {
namespace transport_guard_noise_test {

using test::patience_ms;

/// Of the tests that wait until it has passed.
constexpr int handshake_ms = 200;

/// A peer that speaks TCP and nothing else.
class RawPeer {
 public:
  explicit RawPeer(const std::string& endpoint) : descriptor_(::socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(static_cast<std::uint16_t>(std::stoi(endpoint.substr(endpoint.rfind(':') + 1))));
    connected_ = ::connect(descriptor_, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
    const timeval patience{patience_ms / 1000, 0};
    setsockopt(descriptor_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  }
  ~RawPeer() { ::close(descriptor_); }
  RawPeer(const RawPeer&) = delete;
  RawPeer& operator=(const RawPeer&) = delete;

  bool connected() const { return connected_; }
  void say(const std::string& bytes) { (void)!::send(descriptor_, bytes.data(), bytes.size(), MSG_NOSIGNAL); }
  /// Whether the other side ends the connection.
  bool is_turned_away() {
    char bytes[256];
    ssize_t got = 0;
    do got = ::recv(descriptor_, bytes, sizeof bytes, 0);
    while (got > 0);
    return got == 0 || errno == ECONNRESET;
  }

 private:
  int descriptor_;
  bool connected_ = false;
};

class NoiseTest : public test::GuardTest {
 protected:
  static std::string noise(std::uint64_t seed) {
    using namespace std::string_literals;
    test::Dice dice(seed);
    const std::string random = dice.bytes(1 + dice.below(2000));
    if (seed % 3 == 0) return random;
    const std::string signature = "\xff\0\0\0\0\0\0\0\x01\x7f"s, mechanism = seed % 3 == 1 ? "PLAIN" : "CURVE";
    return signature + "\x03\0"s + mechanism + std::string(15, 0) + std::string(32, 0) + random;
  }

  /// Silent peers stay while noisy ones come and go; the handshake's limit is too far away to help.
  void expect_no_harm(bool curve) {
    zmq::socket_t server = protected_socket(curve);
    std::vector<std::unique_ptr<RawPeer>> silent;
    for (int i = 0; i < 20; ++i) silent.push_back(std::make_unique<RawPeer>(address_of(server)));
    for (std::uint64_t seed = 0; seed < 150; ++seed) {
      silent.push_back(std::make_unique<RawPeer>(address_of(server)));
      silent.back()->say(noise(seed));
    }
    expect_only_the_good_peer(server, curve);
  }
};

TEST_F(NoiseTest, half_open_handshakes_end) {
  zmq::socket_t server = protected_socket(false, handshake_ms);
  RawPeer silent(address_of(server)), halting(address_of(server));
  halting.say("\xff");
  EXPECT_TRUE(silent.connected());
  EXPECT_TRUE(silent.is_turned_away());
  EXPECT_TRUE(halting.is_turned_away());
}

TEST_F(NoiseTest, peers_of_old_protocols_that_know_no_credentials_are_turned_away) {
  using namespace std::string_literals;
  zmq::socket_t server = protected_socket(false, handshake_ms);
  const std::string first = "\x01\x00\x04\x00"s + "bad", second = "\xff\0\0\0\0\0\0\0\x01\x7f\x01\x08\0\0\0\x03"s + "bad";
  for (const std::string& greeting : {first, second}) {
    RawPeer old(address_of(server));
    old.say(greeting);
    EXPECT_TRUE(old.is_turned_away());
  }
  EXPECT_EQ(hear(server, zmq::recv_flags::dontwait), "nothing");
}

TEST_F(NoiseTest, does_not_keep_the_good_peer_of_a_token_out) {
  expect_no_harm(false);
}

TEST_F(NoiseTest, does_not_keep_the_good_peer_of_a_key_out) {
  expect_no_harm(true);
}

}  // namespace transport_guard_noise_test
}  // namespace rubato
