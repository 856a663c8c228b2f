#include "sample_files.h"

#include "../support/temporary_directory.h"
#include "rubato/core/error.h"
#include "rubato/data/dataset.h"

namespace rubato::test {
namespace data_idx_test {

/// A tiny MNIST: 6 training and 2 test images of 3 x 5.
class Idx : public ::testing::Test {
 protected:
  Idx() {
    write_file(images(), idx_bytes({6, 3, 5}, pixels_));
    write_file(labels(), idx_bytes({6}, std::string_view("\0\1\2\3\4\x9", 6)));
    write_file(path() / "t10k-images-idx3-ubyte", idx_bytes({2, 3, 5}, noise(30, 2)));
    write_file(path() / "t10k-labels-idx1-ubyte", idx_bytes({2}, "\7\7"));
  }

  const std::filesystem::path& path() const { return directory_.path(); }
  std::filesystem::path images() const { return path() / "train-images-idx3-ubyte"; }
  std::filesystem::path labels() const { return path() / "train-labels-idx1-ubyte"; }
  DataSplit load() const { return load_dataset("mnist", path().string()); }
  std::string refusal() const {
    return complaint<DataError>([&] { load(); });
  }

  TemporaryDirectory directory_;
  std::string pixels_ = noise(90, 1);
};

TEST_F(Idx, reads_back_the_images_and_labels_that_were_written) {
  const DataSplit data = load();
  EXPECT_EQ(data.train.name, "mnist");
  EXPECT_EQ(data.train.classes, 10);
  EXPECT_FALSE(data.train.is_text());
  ASSERT_EQ(data.train.inputs.sizes(), torch::IntArrayRef({6, 1, 3, 5}));
  ASSERT_EQ(data.train.inputs.scalar_type(), torch::kUInt8);
  const auto* raw = static_cast<const char*>(data.train.inputs.data_ptr());
  EXPECT_EQ(std::string_view(raw, 90), pixels_);
  EXPECT_TRUE(torch::equal(data.train.targets, torch::tensor({0, 1, 2, 3, 4, 9}, torch::kInt64)));
  EXPECT_TRUE(torch::equal(data.test.targets, torch::tensor({7, 7}, torch::kInt64)));
}

TEST_F(Idx, reads_gzip_files_as_if_they_were_plain) {
  const DataSplit plain = load();
  for (const auto& file : {images(), labels()}) {
    write_gzip(file.string() + ".gz", read_file(file));
    std::filesystem::remove(file);
  }
  const DataSplit packed = load();
  EXPECT_TRUE(torch::equal(plain.train.inputs, packed.train.inputs));
  EXPECT_TRUE(torch::equal(plain.train.targets, packed.train.targets));
}

TEST_F(Idx, reports_the_expected_and_found_size_of_a_truncated_file) {
  truncate_file(images(), 40);
  EXPECT_MENTIONS(refusal(), images().string() + ": expected 106 bytes for 6 images of 3 x 5, found 40");
}

TEST_F(Idx, reports_the_expected_and_found_size_of_a_truncated_gzip_file) {
  const std::string gzip = images().string() + ".gz";
  write_gzip(gzip, read_file(images()));
  std::filesystem::remove(images());
  truncate_file(gzip, std::filesystem::file_size(gzip) - 30);
  EXPECT_MENTIONS(refusal(), gzip + ": expected 106 bytes for 6 images of 3 x 5, found ");
}

TEST_F(Idx, reports_a_gzip_file_that_only_lacks_its_end_mark) {
  const std::string gzip = labels().string() + ".gz";
  write_gzip(gzip, read_file(labels()));
  std::filesystem::remove(labels());
  truncate_file(gzip, std::filesystem::file_size(gzip) - 8);
  EXPECT_MENTIONS(refusal(), gzip + ": the gzip data stops after 14 bytes, before its end mark");
}

TEST_F(Idx, reports_damaged_gzip_data) {
  const std::string gzip = images().string() + ".gz";
  write_gzip(gzip, read_file(images()));
  std::filesystem::remove(images());
  std::string bytes = read_file(gzip);
  bytes[bytes.size() - 6] ^= 1;  // in the checksum
  write_file(gzip, bytes);
  EXPECT_MENTIONS(refusal(), gzip + ": damaged after ");
}

TEST_F(Idx, reports_a_file_that_is_too_long) {
  write_file(labels(), idx_bytes({6}, "\1\1\1\1\1\1\1"));
  EXPECT_MENTIONS(refusal(), labels().string() + ": expected 14 bytes for 6 labels, found 15");
}

TEST_F(Idx, reports_a_file_shorter_than_its_header) {
  write_file(images(), "abc");
  EXPECT_MENTIONS(refusal(), images().string() + ": expected at least 16 bytes for the IDX header, found 3");
}

TEST_F(Idx, reports_a_wrong_magic_number) {
  write_file(images(), read_file(labels()) + "enough bytes for a header");
  EXPECT_MENTIONS(refusal(), "expected the IDX magic number 0x00000803 (bytes, 3 dimensions), found 0x00000801");
}

TEST_F(Idx, reports_sizes_that_no_image_has) {
  write_file(images(), idx_bytes({6, 0xffffffff, 0xffffffff}, pixels_));
  EXPECT_MENTIONS(refusal(), "size 4294967295 of dimension 1 is outside 1..32768");
  write_file(images(), idx_bytes({0, 3, 5}, ""));
  EXPECT_MENTIONS(refusal(), "size 0 of dimension 0 is outside 1..");
}

TEST_F(Idx, reports_a_label_out_of_range) {
  write_file(labels(), idx_bytes({6}, "\1\1\1\1\1\xb"));
  EXPECT_MENTIONS(refusal(), labels().string() + ": label 11 of sample 5 is outside 0..9");
}

TEST_F(Idx, reports_that_images_and_labels_differ_in_number) {
  write_file(labels(), idx_bytes({5}, "\1\1\1\1\1"));
  EXPECT_MENTIONS(refusal(), "holds 6 images, but " + labels().string() + " holds 5 labels");
}

TEST_F(Idx, reports_the_path_of_a_missing_file_and_how_to_get_it) {
  std::filesystem::remove(labels());
  EXPECT_MENTIONS(refusal(), labels().string() + ": not found, neither plain nor with .gz; put the four IDX files");
  const std::string fashion = complaint<DataError>([&] { load_dataset("fashion-mnist", path().string()); });
  EXPECT_MENTIONS(fashion,
                  "install Debian's package dataset-fashion-mnist, which puts it in "
                  "/usr/share/datasets/fashion-mnist, or name its folder with --data-dir");
}

TEST(Datasets, names_the_nearest_known_data_set_for_a_misspelt_one) {
  const std::string sentence = complaint<UsageError>([] { load_dataset("fashon-mnist", ""); });
  EXPECT_MENTIONS(sentence, "'fashon-mnist'");
  EXPECT_MENTIONS(sentence, "fashion-mnist, mnist, cifar10, cifar100, text");
}

TEST(FashionMnist, of_debian_has_60000_and_10000_images_balanced_over_10_classes) {
  const DataSplit data = load_dataset("fashion-mnist", "");
  EXPECT_EQ(data.train.inputs.sizes(), torch::IntArrayRef({60000, 1, 28, 28}));
  EXPECT_EQ(data.test.inputs.sizes(), torch::IntArrayRef({10000, 1, 28, 28}));
  const auto per_class = [](const Dataset& part) { return torch::bincount(part.targets); };
  EXPECT_TRUE(torch::equal(per_class(data.train), torch::full({10}, 6000, torch::kInt64)));
  EXPECT_TRUE(torch::equal(per_class(data.test), torch::full({10}, 1000, torch::kInt64)));
  const torch::Tensor scaled = data.train.inputs.to(torch::kFloat32) / 255;
  EXPECT_NEAR(scaled.mean().item<double>(), data.train.mean.at(0), 1e-4);
  EXPECT_NEAR(scaled.std().item<double>(), data.train.deviation.at(0), 1e-4);
}

}  // namespace data_idx_test
}  // namespace rubato::test
