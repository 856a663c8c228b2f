#include "sample_files.h"

#include <cstdint>

#include "../support/temporary_directory.h"
#include "rubato/core/error.h"
#include "rubato/data/dataset.h"

namespace rubato::test {
namespace data_text_test {

class Text : public ::testing::Test {
 protected:
  /// 20 times "abcde", so 100 characters: 90 to train, 10 to test.
  Text() {
    std::string text;
    for (int i = 0; i < 20; ++i) text += "ecabd";
    write_file(file(), text);
  }

  std::filesystem::path file() const { return directory_.path() / "letters.txt"; }
  std::string refusal(const std::filesystem::path& place, std::int64_t length = 4) const {
    return complaint<DataError>([&] { load_dataset("text", place.string(), {.sequence_length = length}); });
  }

  TemporaryDirectory directory_;
};

TEST_F(Text, becomes_tokens_of_a_sorted_vocabulary) {
  const Dataset train = load_dataset("text", file().string(), {.sequence_length = 4}).train;
  EXPECT_TRUE(train.is_text());
  EXPECT_EQ(train.classes, 5);
  EXPECT_TRUE(train.mean.empty());
  EXPECT_TRUE(torch::equal(train.inputs[0], torch::tensor({4, 2, 0, 1}, torch::kInt64)));
  EXPECT_TRUE(torch::equal(train.inputs[1], torch::tensor({3, 4, 2, 0}, torch::kInt64)));
}

TEST_F(Text, has_targets_shifted_by_one_and_samples_without_overlap) {
  const Dataset train = load_dataset("text", file().string(), {.sequence_length = 4}).train;
  ASSERT_EQ(train.inputs.sizes(), torch::IntArrayRef({22, 4}));
  ASSERT_EQ(train.targets.sizes(), train.inputs.sizes());
  const torch::Tensor inputs = train.inputs.reshape({-1}), targets = train.targets.reshape({-1});
  EXPECT_TRUE(torch::equal(inputs.slice(0, 1), targets.slice(0, 0, 87)));
}

TEST_F(Text, gives_its_last_tenth_to_the_test_split) {
  std::string text(90, 'a');
  write_file(file(), text + "bcdefghijk");
  const DataSplit data = load_dataset("text", file().string(), {.sequence_length = 3});
  EXPECT_EQ(data.train.size(), 29);
  EXPECT_TRUE((data.train.targets == 0).all().item<bool>());
  EXPECT_TRUE(torch::equal(data.test.inputs, torch::arange(1, 10, torch::kInt64).view({3, 3})));
  EXPECT_TRUE(torch::equal(data.test.targets, torch::arange(2, 11, torch::kInt64).view({3, 3})));
  EXPECT_EQ(data.test.classes, 11);
}

TEST_F(Text, keeps_bytes_above_127_apart) {
  std::string text;
  for (int i = 0; i < 10; ++i) text += "\xc3\xa4\xff z";
  write_file(file(), text);
  const Dataset train = load_dataset("text", file().string(), {.sequence_length = 2}).train;
  EXPECT_EQ(train.classes, 5);
  EXPECT_TRUE(torch::equal(train.inputs[0], torch::tensor({3, 2}, torch::kInt64)));
}

TEST_F(Text, may_be_compressed_or_the_only_text_of_a_folder) {
  const Dataset plain = load_dataset("text", file().string(), {.sequence_length = 4}).train;
  EXPECT_TRUE(torch::equal(load_dataset("text", directory_.path().string(), {.sequence_length = 4}).train.inputs, plain.inputs));
  write_gzip(file().string() + ".gz", read_file(file()));
  std::filesystem::remove(file());
  EXPECT_TRUE(torch::equal(load_dataset("text", directory_.path().string(), {.sequence_length = 4}).train.inputs, plain.inputs));
}

TEST_F(Text, reports_a_folder_without_a_text_or_with_several) {
  write_file(directory_.path() / "more.txt", "more");
  EXPECT_MENTIONS(refusal(directory_.path()), directory_.path().string() + ": found 2 *.txt files, expected one");
  TemporaryDirectory empty;
  EXPECT_MENTIONS(refusal(empty.path()),
                  empty.path().string() + ": no *.txt file found; install Debian's package bible-kjv-text");
}

TEST_F(Text, reports_a_missing_file_and_how_to_get_one) {
  const auto missing = directory_.path() / "missing.txt";
  EXPECT_MENTIONS(refusal(missing), missing.string() + ": not found; install Debian's package bible-kjv-text");
  EXPECT_MENTIONS(refusal(missing), "--data-dir");
}

TEST_F(Text, reports_a_file_too_short_for_one_test_sample) {
  EXPECT_MENTIONS(refusal(file(), 10), file().string() + ": found 100 characters, expected at least 110");
  EXPECT_EQ(load_dataset("text", file().string(), {.sequence_length = 9}).test.size(), 1);
  write_file(file(), "");
  EXPECT_MENTIONS(refusal(file(), 1), "found 0 characters, expected at least 20");
}

TEST_F(Text, refuses_a_sequence_length_below_one) {
  const std::string sentence = complaint<UsageError>([&] { load_dataset("text", file().string(), {.sequence_length = 0}); });
  EXPECT_MENTIONS(sentence, "sequence length 0 makes no sample: it must be at least 1");
}

/// FNV-1a over the bytes that `tokens` stand for.
std::uint64_t digest(const torch::Tensor& tokens, std::string_view vocabulary, std::uint64_t hash) {
  const auto* token = tokens.data_ptr<std::int64_t>();
  for (std::int64_t i = 0; i < tokens.numel(); ++i) {
    hash = (hash ^ static_cast<std::uint8_t>(vocabulary.at(token[i]))) * 0x100000001b3ull;
  }
  return hash;
}

TEST(BibleText, of_debian_is_expanded_to_the_text_that_gzip_finds_in_it) {
  const std::string_view vocabulary = "\n !'(),-.0123456789:;?ABCDEFGHIJKLMNOPQRSTUVWYZabcdefghijklmnopqrstuvwxyz";
  // Length 1 makes every character but the last of each split an input.
  const DataSplit data = load_dataset("text", "", {.sequence_length = 1});
  ASSERT_EQ(data.train.classes, static_cast<std::int64_t>(vocabulary.size()));
  EXPECT_EQ(data.train.size(), 3964028 - 1);
  EXPECT_EQ(data.test.size(), 440447 - 1);
  EXPECT_EQ(digest(data.train.inputs, vocabulary, 0xcbf29ce484222325ull), 0xeca9d8596de37611ull);
  EXPECT_EQ(digest(data.test.inputs, vocabulary, 0xcbf29ce484222325ull), 0x9a65b5a82401441bull);
}

TEST(BibleText, reports_damage_with_the_expected_and_found_size_or_the_window) {
  TemporaryDirectory directory;
  const auto file = directory.path() / "bible.data";
  const std::string whole = read_file("/usr/lib/bible.data");
  const auto refusal = [&](std::string bytes) {
    write_file(file, bytes);
    return complaint<DataError>([&] { load_dataset("text", directory.path().string()); });
  };
  EXPECT_MENTIONS(refusal(whole.substr(0, 50)), file.string() + ": expected at least 88 bytes, found 50");
  EXPECT_MENTIONS(refusal(whole.substr(0, 30000)), ": expected at least 51603 bytes, found 30000");
  std::string damaged = whole;
  damaged.replace(0x6600, 64, 64, '\xff');
  EXPECT_MENTIONS(refusal(damaged), file.string() + ": window 2 of 68 is damaged; reinstall");
  damaged = whole;
  damaged[85] = 2;
  EXPECT_MENTIONS(refusal(damaged), file.string() + ": the header is damaged");
}

}  // namespace data_text_test
}  // namespace rubato::test
