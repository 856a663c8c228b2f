#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "rubato/core/random.h"

namespace rubato {

/// Normalised value of each raw pixel value of one channel.
using PixelTable = std::array<float, 256>;

/// (raw / 255 - mean) / deviation for every channel.
std::vector<PixelTable> pixel_tables(const std::vector<double>& mean, const std::vector<double>& deviation);

struct ImageShape {
  std::int64_t channels, height, width;
  std::int64_t pixels() const { return channels * height * width; }
};

/// Augmentation of one image: a crop of the original size after padding by 4 pixels, then perhaps a mirror.
struct Jitter {
  static constexpr std::int64_t padding = 4;
  bool flip = false;
  std::int64_t down = 0, right = 0;  ///< offset of the crop in the image, -padding..padding

  static Jitter drawn(RandomStream random);
};

/// Writes one image, channel by channel, normalised. `tables` has one table per channel.
void write_image(const std::uint8_t* raw, const ImageShape& shape, const std::vector<PixelTable>& tables, float* out);

/// The same with `jitter`; padding has the raw value 0.
void write_image(const std::uint8_t* raw, const ImageShape& shape, const std::vector<PixelTable>& tables, const Jitter& jitter,
                 float* out);

}  // namespace rubato
