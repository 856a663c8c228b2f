// A text as characters. The vocabulary is the sorted list of the distinct bytes of the whole file, or that of the text which a
// model was trained on; a token is the place of a byte in it. The last tenth of the file is the test split. Samples of
// `sequence_length` characters do not overlap; the target of a character is the one after it, so each split leaves at least its
// last character without a sample of its own.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdint>

#include "data/bible.h"
#include "data/files.h"
#include "data/formats.h"
#include "rubato/core/error.h"
#include "rubato/core/read_file.h"

namespace rubato {
namespace {

bool is_text_name(const std::filesystem::path& path) {
  return path.extension() == ".txt" || (path.extension() == ".gz" && path.stem().extension() == ".txt");
}

/// The one text in a folder: bible.data, or else the only *.txt or *.txt.gz. Several would make the choice a guess.
std::filesystem::path only_text_in(const DatasetFiles& entry, const std::filesystem::path& directory) {
  std::error_code error;  // of what cannot be read; a file that cannot be is not a text
  if (std::filesystem::is_regular_file(directory / "bible.data", error)) return directory / "bible.data";
  std::vector<std::filesystem::path> found;
  const std::filesystem::directory_iterator files(directory, error);
  if (error) throw DataError(directory.string() + ": " + error.message() + "; check the path and its permissions");
  for (const auto& file : files) {
    if (file.is_regular_file(error) && is_text_name(file.path())) found.push_back(file.path());
  }
  if (found.size() == 1) return found.front();
  if (found.empty()) throw DataError(directory.string() + ": no *.txt file found; " + entry.how_to_get);
  throw DataError(directory.string() + ": found " + std::to_string(found.size()) +
                  " *.txt files, expected one; name the file itself with --data-dir");
}

FileBytes read_text(const DatasetFiles& entry, const std::filesystem::path& place) {
  if (const auto why = hidden_by(place)) throw DataError(place.string() + ": " + *why + "; check the path and its permissions");
  if (!std::filesystem::exists(place)) throw DataError(place.string() + ": not found; " + entry.how_to_get);
  if (std::filesystem::is_character_file(place) || std::filesystem::is_block_file(place)) {
    throw DataError(place.string() + " is a device, not a text");
  }
  const bool folder = std::filesystem::is_directory(place);
  const FileBytes file = read_bytes(folder ? only_text_in(entry, place) : place);
  require_whole(file);
  return is_compressed_text(file) ? expand_compressed_text(file) : file;
}

/// Tokens of bytes.
struct Vocabulary {
  /// `bytes`: of the tokens 0, 1, ...
  explicit Vocabulary(std::string bytes_) : bytes(std::move(bytes_)) {
    token.fill(-1);
    for (std::size_t i = 0; i < bytes.size(); ++i) token[static_cast<std::uint8_t>(bytes[i])] = static_cast<std::int64_t>(i);
  }
  std::int64_t size() const { return static_cast<std::int64_t>(bytes.size()); }
  std::string bytes;
  std::array<std::int64_t, 256> token{};
};

/// Every byte that occurs in the text, in their order.
std::string bytes_of(const FileBytes& text) {
  std::array<bool, 256> present{};
  for (const std::uint8_t byte : *text.bytes) present[byte] = true;
  std::string bytes;
  for (std::size_t byte = 0; byte < present.size(); ++byte) {
    if (present[byte]) bytes += static_cast<char>(byte);
  }
  return bytes;
}

std::string readable(std::uint8_t byte) {
  return byte > ' ' && byte < 127 ? fmt::format("'{}'", static_cast<char>(byte)) : fmt::format("byte {}", byte);
}

void refuse_unknown(const FileBytes& text, const Vocabulary& vocabulary) {
  std::vector<std::string> unknown;
  for (const char byte : bytes_of(text)) {
    const auto value = static_cast<std::uint8_t>(byte);
    if (vocabulary.token[value] < 0) unknown.push_back(readable(value));
  }
  if (unknown.empty()) return;
  constexpr std::size_t most = 5;
  const std::size_t more = unknown.size() > most ? unknown.size() - most : 0;
  unknown.resize(std::min(unknown.size(), most));
  throw DataError(fmt::format("{} has characters that the model was not trained on: {}{}; use a text of the same characters",
                              text.path.string(), join(unknown), more > 0 ? fmt::format(" and {} more", more) : ""));
}

torch::Tensor tokens_of(const FileBytes& text, const Vocabulary& vocabulary) {
  torch::Tensor tokens = torch::empty({static_cast<std::int64_t>(text.size())}, torch::kInt64);
  auto* out = tokens.data_ptr<std::int64_t>();
  for (const std::uint8_t byte : *text.bytes) *out++ = vocabulary.token[byte];
  return tokens;
}

/// Inputs and targets are two views of the same tokens.
Dataset samples_of(const DatasetFiles& entry, const torch::Tensor& tokens, std::int64_t length, const Vocabulary& vocabulary) {
  const std::int64_t count = (tokens.size(0) - 1) / length;
  const auto from = [&](std::int64_t begin) { return tokens.narrow(0, begin, count * length).view({count, length}); };
  return {entry.name, from(0), from(1), vocabulary.size(), {}, {}, vocabulary.bytes};
}

}  // namespace

DataSplit load_text(const DatasetFiles& entry, const std::filesystem::path& place, const DataOptions& options) {
  const std::int64_t length = options.sequence_length;
  if (length < 1) {
    throw UsageError("sequence length " + std::to_string(length) + " makes no sample: it must be at least 1");
  }
  const FileBytes text = read_text(entry, place);
  const auto size = static_cast<std::int64_t>(text.size()), test_size = size / 10;
  if ((test_size - 1) / length < 1) {
    throw DataError(text.path.string() + ": found " + std::to_string(size) + " characters, expected at least " +
                    std::to_string(10 * (length + 1)) + " for one test sample of " + std::to_string(length) +
                    "; use a longer text or shorter sequences");
  }
  const Vocabulary vocabulary(options.vocabulary.value_or(bytes_of(text)));
  refuse_unknown(text, vocabulary);
  const torch::Tensor tokens = tokens_of(text, vocabulary);
  const std::int64_t train_size = size - test_size;
  return {samples_of(entry, tokens.narrow(0, 0, train_size), length, vocabulary),
          samples_of(entry, tokens.narrow(0, train_size, test_size), length, vocabulary)};
}

}  // namespace rubato
