#include "data/bible.h"

#include <algorithm>
#include <cstdint>
#include <span>
#include <string_view>

#include "rubato/core/error.h"

namespace rubato {
namespace {

constexpr std::string_view signature = "EC02Compressed Data File";
constexpr std::size_t size_at = 84, count_at = 88, offsets_at = 92;
/// The dictionary never fills within this size, so a clear code can only be the end of a window.
constexpr std::size_t largest_window = 1 << 16;

[[noreturn]] void refuse(const FileBytes& file, const std::string& what) {
  throw DataError(file.path.string() + ": " + what + "; reinstall Debian's package bible-kjv-text");
}

std::size_t number_at(const FileBytes& file, std::size_t at) {
  if (at + 4 > file.size()) {
    refuse(file, "expected at least " + std::to_string(at + 4) + " bytes, found " + std::to_string(file.size()));
  }
  const std::uint8_t* bytes = file.data() + at;
  return std::size_t{bytes[0]} << 24 | bytes[1] << 16 | bytes[2] << 8 | bytes[3];
}

/// LZW (Welch 1984) as compress(1) writes it: codes come in groups of eight, and when codes get wider the rest of the
/// group is padding.
class LzwReader {
 public:
  explicit LzwReader(std::span<const std::uint8_t> input) : input_(input), words_(first_free) {}

  /// Appends the expanded window to `output`; false if the codes make no sense.
  bool expand(std::vector<std::uint8_t>& output, std::size_t limit) {
    const std::size_t begin = output.size();
    Word previous{begin, 0};
    while (has_code()) {
      const unsigned code = next_code();
      if (code == clear) return true;
      const Word word{output.size(), append(output, code, previous)};
      if (word.length == 0 || output.size() - begin > limit) return false;
      // The new word is the previous one and the first byte after it: what `output` holds from `previous.begin`.
      if (previous.length > 0 && words_.size() < largest_window) words_.push_back({previous.begin, previous.length + 1});
      previous = word;
    }
    return true;
  }

 private:
  struct Word {
    std::size_t begin = 0, length = 0;  ///< place in the output where the word stands
  };
  static constexpr unsigned clear = 256, first_free = 257, widest = 16;

  bool has_code() {
    if (words_.size() >> width_ != 0 && width_ < widest) {
      const std::size_t group = 8 * width_;
      bit_ = run_start_ + (bit_ - run_start_ + group - 1) / group * group;
      run_start_ = bit_;
      ++width_;
    }
    return bit_ + width_ <= 8 * input_.size();
  }

  unsigned next_code() {
    unsigned code = 0;
    for (unsigned i = 0; i < width_; ++i, ++bit_) code |= (input_[bit_ / 8] >> bit_ % 8 & 1u) << i;
    return code;
  }

  /// Length of what `code` stands for, 0 if it stands for nothing.
  std::size_t append(std::vector<std::uint8_t>& output, unsigned code, const Word& previous) const {
    if (code < 256) {
      output.push_back(static_cast<std::uint8_t>(code));
      return 1;
    }
    // A code may name the very word that it completes: the previous one and its own first byte.
    const bool completes_itself = code == words_.size() && previous.length > 0;
    if (code < first_free || (code >= words_.size() && !completes_itself)) return 0;
    const Word word = completes_itself ? Word{previous.begin, previous.length + 1} : words_[code];
    for (std::size_t i = 0; i < word.length; ++i) output.push_back(output[word.begin + i]);
    return word.length;
  }

  std::span<const std::uint8_t> input_;
  std::vector<Word> words_;
  std::size_t bit_ = 0, run_start_ = 0;
  unsigned width_ = 9;
};

}  // namespace

bool is_compressed_text(const FileBytes& file) {
  return file.size() >= signature.size() && std::equal(signature.begin(), signature.end(), file.data());
}

FileBytes expand_compressed_text(const FileBytes& file) {
  const std::size_t window = number_at(file, size_at), count = number_at(file, count_at);
  if (window == 0 || window > largest_window || count == 0) refuse(file, "the header is damaged");
  FileBytes text{file.path, std::make_shared<std::vector<std::uint8_t>>()};
  for (std::size_t i = 0; i < count; ++i) {
    const std::size_t begin = number_at(file, offsets_at + 4 * i), end = number_at(file, offsets_at + 4 * i + 4);
    if (end > file.size()) {
      refuse(file, "expected at least " + std::to_string(end) + " bytes, found " + std::to_string(file.size()));
    }
    const std::size_t wanted = (i + 1) * window;
    const bool sound = begin < end && LzwReader({file.data() + begin, end - begin}).expand(*text.bytes, window) &&
                       (text.size() == wanted || i + 1 == count);
    if (!sound) refuse(file, "window " + std::to_string(i + 1) + " of " + std::to_string(count) + " is damaged");
  }
  return text;
}

}  // namespace rubato
