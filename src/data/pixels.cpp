#include "data/pixels.h"

#include <algorithm>
#include <cstdint>

namespace rubato {
namespace {

/// `right` and `flip` as in Jitter.
void write_row(const std::uint8_t* raw, std::int64_t width, const PixelTable& table, const Jitter& jitter, float* out) {
  const std::int64_t first = std::clamp<std::int64_t>(-jitter.right, 0, width);
  const std::int64_t last = std::clamp<std::int64_t>(width - jitter.right, first, width);
  const auto write = [&](std::int64_t x, float value) { out[jitter.flip ? width - 1 - x : x] = value; };
  for (std::int64_t x = 0; x < first; ++x) write(x, table[0]);
  for (std::int64_t x = first; x < last; ++x) write(x, table[raw[x + jitter.right]]);
  for (std::int64_t x = last; x < width; ++x) write(x, table[0]);
}

}  // namespace

std::vector<PixelTable> pixel_tables(const std::vector<double>& mean, const std::vector<double>& deviation) {
  std::vector<PixelTable> tables(mean.size());
  for (std::size_t channel = 0; channel < mean.size(); ++channel) {
    for (int raw = 0; raw < 256; ++raw) {
      tables[channel][raw] = static_cast<float>((raw / 255.0 - mean[channel]) / deviation[channel]);
    }
  }
  return tables;
}

Jitter Jitter::drawn(RandomStream random) {
  Jitter jitter;
  jitter.flip = random.below(2) == 1;
  jitter.down = static_cast<std::int64_t>(random.below(2 * padding + 1)) - padding;
  jitter.right = static_cast<std::int64_t>(random.below(2 * padding + 1)) - padding;
  return jitter;
}

void write_image(const std::uint8_t* raw, const ImageShape& shape, const std::vector<PixelTable>& tables, float* out) {
  const std::int64_t area = shape.height * shape.width;
  for (const PixelTable& table : tables) {
    for (std::int64_t i = 0; i < area; ++i) out[i] = table[raw[i]];
    raw += area;
    out += area;
  }
}

void write_image(const std::uint8_t* raw, const ImageShape& shape, const std::vector<PixelTable>& tables, const Jitter& jitter,
                 float* out) {
  for (const PixelTable& table : tables) {
    for (std::int64_t y = 0; y < shape.height; ++y, out += shape.width) {
      const std::int64_t source = y + jitter.down;
      if (source < 0 || source >= shape.height) {
        std::fill_n(out, shape.width, table[0]);
      } else {
        write_row(raw + source * shape.width, shape.width, table, jitter, out);
      }
    }
    raw += shape.height * shape.width;
  }
}

}  // namespace rubato
