#include "sample_files.h"

#include <cstdint>

#include "../support/temporary_directory.h"
#include "rubato/core/error.h"
#include "rubato/data/dataset.h"

namespace rubato::test {
namespace data_cifar_test {

constexpr std::size_t pixels = 3 * 32 * 32;

std::string record(std::string_view labels, std::uint64_t seed) {
  return std::string(labels) + noise(pixels, seed);
}

/// CIFAR-10 with two samples in each of the five training files and one to test.
class Cifar10 : public ::testing::Test {
 protected:
  Cifar10() { write(directory_.path()); }

  void write(const std::filesystem::path& folder) {
    for (char i = 1; i <= 5; ++i) {
      const std::string first(1, i), second(1, static_cast<char>(i + 4));
      write_file(folder / ("data_batch_" + std::to_string(i) + ".bin"), record(first, i) + record(second, 10 + i));
    }
    write_file(folder / "test_batch.bin", record(std::string_view("\0", 1), 99));
  }
  std::string refusal() const {
    return complaint<DataError>([&] { load_dataset("cifar10", directory_.path().string()); });
  }

  TemporaryDirectory directory_;
};

TEST_F(Cifar10, reads_five_files_one_after_the_other) {
  const DataSplit data = load_dataset("cifar10", directory_.path().string());
  ASSERT_EQ(data.train.inputs.sizes(), torch::IntArrayRef({10, 3, 32, 32}));
  EXPECT_TRUE(torch::equal(data.train.targets, torch::tensor({1, 5, 2, 6, 3, 7, 4, 8, 5, 9}, torch::kInt64)));
  const auto* raw = static_cast<const char*>(data.train.inputs.data_ptr());
  EXPECT_EQ(std::string_view(raw + 2 * pixels, pixels), noise(pixels, 2));
  EXPECT_EQ(std::string_view(raw + 9 * pixels, pixels), noise(pixels, 15));
  EXPECT_EQ(data.test.size(), 1);
  EXPECT_EQ(data.train.classes, 10);
  EXPECT_EQ(data.train.mean.size(), 3u);
}

TEST_F(Cifar10, is_found_in_the_folder_that_the_archive_unpacks_to) {
  TemporaryDirectory outer;
  write(outer.path() / "cifar-10-batches-bin");
  EXPECT_EQ(load_dataset("cifar10", outer.path().string()).train.size(), 10);
}

TEST_F(Cifar10, reports_the_expected_and_found_size_of_a_truncated_file) {
  const auto file = directory_.path() / "data_batch_3.bin";
  truncate_file(file, 1203);
  EXPECT_MENTIONS(refusal(), file.string() + ": expected a multiple of 3073 bytes");
  EXPECT_MENTIONS(refusal(), "found 1203");
  truncate_file(file, 0);
  EXPECT_MENTIONS(refusal(), "found 0");
}

TEST_F(Cifar10, reports_a_label_out_of_range) {
  const auto file = directory_.path() / "test_batch.bin";
  write_file(file, record("\3", 1) + record("\xa", 2));
  EXPECT_MENTIONS(refusal(), file.string() + ": label 10 of sample 1 is outside 0..9");
}

TEST_F(Cifar10, reports_the_path_of_a_missing_file_and_how_to_get_it) {
  const auto file = directory_.path() / "data_batch_5.bin";
  std::filesystem::remove(file);
  EXPECT_MENTIONS(refusal(), file.string() + ": not found");
  EXPECT_MENTIONS(refusal(), "cifar-10-binary.tar.gz");
  EXPECT_MENTIONS(refusal(), "--data-dir");
}

TEST(Cifar100, uses_the_fine_label_of_two) {
  TemporaryDirectory directory;
  write_file(directory.path() / "cifar-100-binary" / "train.bin", record("\x13\x63", 1) + record("\1\2", 2));
  write_file(directory.path() / "cifar-100-binary" / "test.bin", record("\3\4", 3));
  const DataSplit data = load_dataset("cifar100", directory.path().string());
  EXPECT_TRUE(torch::equal(data.train.targets, torch::tensor({99, 2}, torch::kInt64)));
  EXPECT_TRUE(torch::equal(data.test.targets, torch::tensor({4}, torch::kInt64)));
  EXPECT_EQ(data.train.classes, 100);
  const auto* raw = static_cast<const char*>(data.train.inputs.data_ptr());
  EXPECT_EQ(std::string_view(raw + pixels, pixels), noise(pixels, 2));
}

TEST(Cifar100, refuses_files_of_cifar_10) {
  TemporaryDirectory directory;
  write_file(directory.path() / "train.bin", record("\1", 1));
  const std::string sentence = complaint<DataError>([&] { load_dataset("cifar100", directory.path().string()); });
  EXPECT_MENTIONS(sentence, "expected a multiple of 3074 bytes (labels and 3 x 32 x 32 pixels per sample), found 3073");
}

}  // namespace data_cifar_test
}  // namespace rubato::test
