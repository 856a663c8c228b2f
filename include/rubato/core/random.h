#pragma once

#include <cstdint>
#include <initializer_list>
#include <limits>

namespace rubato {

/// What a random stream is for; part of its key, so that no two uses ever share a stream.
enum class RandomUse : std::uint64_t {
  shuffle = 1,
  augment,
  weights,
  dropout,
  role,
  delay,
  test,
  gradient_model,
  fault,
  replica
};

/// The seed of replica `replica` in a run of `seed`: that of the run for replica 0. No run of another seed shares it, so that
/// means over seeds are of independent runs.
std::uint64_t replica_seed(std::uint64_t seed, int replica);

/// A stream of 64-bit numbers that depends on its key alone (SplitMix64, Steele et al. 2014): the same on every machine, cheap
/// to create, never shared between threads. Meets UniformRandomBitGenerator.
class RandomStream {
 public:
  using result_type = std::uint64_t;

  /// `ids` are whatever names the consumer: (epoch, index) of a sample, (batch, block) of a dropout mask.
  RandomStream(std::uint64_t seed, RandomUse use, std::initializer_list<std::uint64_t> ids = {})
      : state_(mixed(seed ^ (static_cast<std::uint64_t>(use) << 56))) {
    for (const std::uint64_t id : ids) state_ = mixed(state_ ^ mixed(id + golden));
  }

  static constexpr result_type min() { return 0; }
  static constexpr result_type max() { return std::numeric_limits<result_type>::max(); }
  result_type operator()() { return mixed(state_ += golden); }

  /// Uniform in [0, 1).
  double uniform() { return static_cast<double>((*this)() >> 11) * 0x1.0p-53; }

  /// Uniform in [0, n), n > 0; the bias of at most n / 2^64 is below anything measurable here.
  std::uint64_t below(std::uint64_t n) {
    return static_cast<std::uint64_t>((static_cast<unsigned __int128>((*this)()) * n) >> 64);
  }

 private:
  static constexpr std::uint64_t golden = 0x9e3779b97f4a7c15ull;
  static std::uint64_t mixed(std::uint64_t z) {
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
  }

  std::uint64_t state_;
};

inline std::uint64_t replica_seed(std::uint64_t seed, int replica) {
  return replica == 0 ? seed : RandomStream(seed, RandomUse::replica, {static_cast<std::uint64_t>(replica)})();
}

}  // namespace rubato
