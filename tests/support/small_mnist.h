#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>

#include "rubato/core/random.h"

namespace rubato::test {

inline std::string big_endian(std::uint32_t value) {
  return {static_cast<char>(value >> 24), static_cast<char>(value >> 16), static_cast<char>(value >> 8),
          static_cast<char>(value)};
}

inline void write_split(const std::filesystem::path& folder, const std::string& prefix, std::uint32_t samples,
                        std::uint64_t seed) {
  RandomStream random(seed, RandomUse::test);
  std::string images = big_endian(0x803) + big_endian(samples) + big_endian(28) + big_endian(28);
  std::string labels = big_endian(0x801) + big_endian(samples);
  for (std::uint32_t i = 0; i < samples; ++i) {
    const auto label = static_cast<std::uint32_t>(random.below(10));
    labels += static_cast<char>(label);
    for (std::uint32_t pixel = 0; pixel < 28 * 28; ++pixel) {
      images += static_cast<char>(random.below(150) + (pixel / 28 / 3 == label ? 100 : 0));
    }
  }
  std::ofstream(folder / (prefix + "-images-idx3-ubyte"), std::ios::binary) << images;
  std::ofstream(folder / (prefix + "-labels-idx1-ubyte"), std::ios::binary) << labels;
}

/// Four IDX files in `folder`: images that a small network can learn. Another `seed` makes others of the same shapes.
inline void write_small_mnist(const std::filesystem::path& folder, std::uint64_t seed = 0) {
  write_split(folder, "train", 200, 2 * seed + 1);
  write_split(folder, "t10k", 50, 2 * seed + 2);
}

}  // namespace rubato::test
