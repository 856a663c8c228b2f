#include "rubato/train/event_file.h"

#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <chrono>

#include "event.pb.h"
#include "rubato/core/error.h"

namespace rubato {
namespace {

/// CRC-32C (Castagnoli), which the record format asks for; zlib's is another polynomial.
std::uint32_t crc32c(const std::string& bytes) {
  static const auto table = [] {
    std::array<std::uint32_t, 256> entries{};
    for (std::uint32_t i = 0; i < 256; ++i) {
      std::uint32_t value = i;
      for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ ((value & 1) ? 0x82f63b78u : 0u);
      entries[i] = value;
    }
    return entries;
  }();
  std::uint32_t crc = ~0u;
  for (const unsigned char byte : bytes) crc = table[(crc ^ byte) & 0xff] ^ (crc >> 8);
  return ~crc;
}

/// A record stores its checksums rotated and offset, so that a checksum of checksums stays sound.
std::uint32_t masked(std::uint32_t crc) {
  return ((crc >> 15) | (crc << 17)) + 0xa282ead8u;
}

template <class Number>
std::string raw(Number value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}

double wall_time() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

}  // namespace

EventFile::EventFile(const std::filesystem::path& folder) {
  const auto path = folder / fmt::format("events.out.tfevents.{}.{}.rubato", static_cast<std::int64_t>(wall_time()), ::getpid());
  file_.open(path, std::ios::binary | std::ios::app);
  if (!file_) throw DataError("cannot write " + path.string());
  tensorboard::Event event;
  event.set_wall_time(wall_time());
  event.set_file_version("brain.Event:2");
  record(event.SerializeAsString());
}

void EventFile::scalar(const std::string& tag, std::int64_t step, double value) {
  tensorboard::Event event;
  event.set_wall_time(wall_time());
  event.set_step(step);
  tensorboard::Summary::Value* entry = event.mutable_summary()->add_value();
  entry->set_tag(tag);
  entry->set_simple_value(static_cast<float>(value));
  record(event.SerializeAsString());
}

void EventFile::record(const std::string& bytes) {
  const std::string length = raw(static_cast<std::uint64_t>(bytes.size()));
  file_ << length << raw(masked(crc32c(length))) << bytes << raw(masked(crc32c(bytes))) << std::flush;
  file_.clear();  // a full disk costs the chart, not the run
}

}  // namespace rubato
