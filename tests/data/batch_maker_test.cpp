#include <algorithm>
#include <cstdint>
#include <limits>
#include <numeric>
#include <set>
#include <thread>

#include "rubato/core/error.h"
#include "rubato/data/batch_source.h"
#include "sample_files.h"

namespace rubato::test {
namespace data_batch_maker_test {

/// `count` images of 2 x 6 x 5 random pixels; the label is the number of the sample.
std::shared_ptr<Dataset> images(std::int64_t count) {
  torch::Tensor pixels = torch::empty({count, 2, 6, 5}, torch::kUInt8);
  const std::string raw = noise(pixels.numel(), 3);
  std::copy(raw.begin(), raw.end(), static_cast<char*>(pixels.data_ptr()));
  return std::make_shared<Dataset>(
      Dataset{"noise", pixels, torch::arange(count, torch::kInt64), count, {0.25, 0.5}, {0.5, 0.125}});
}

BatchOptions options(std::int64_t batch_size, std::uint64_t seed = 1) {
  BatchOptions result;
  result.batch_size = batch_size;
  result.seed = seed;
  return result;
}

std::vector<std::int64_t> epoch_of(const BatchMaker& maker, std::int64_t epoch) {
  std::vector<std::int64_t> all;
  const std::int64_t count = maker.batches_per_epoch();
  for (std::int64_t i = epoch * count; i < (epoch + 1) * count; ++i) {
    const std::vector<std::int64_t> part = maker.samples(i);
    all.insert(all.end(), part.begin(), part.end());
  }
  return all;
}

std::vector<std::int64_t> counted(std::int64_t count) {
  std::vector<std::int64_t> result(count);
  std::iota(result.begin(), result.end(), 0);
  return result;
}

bool same(const Batch& a, const Batch& b) {
  return a.index == b.index && a.epoch == b.epoch && torch::equal(a.input, b.input) && torch::equal(a.target, b.target);
}

torch::Tensor normalised(const Dataset& data, std::int64_t sample) {
  torch::Tensor image = data.inputs[sample].to(torch::kFloat64) / 255;
  const torch::Tensor mean = torch::tensor(data.mean, torch::kFloat64).view({-1, 1, 1});
  const torch::Tensor deviation = torch::tensor(data.deviation, torch::kFloat64).view({-1, 1, 1});
  return ((image - mean) / deviation).to(torch::kFloat32);
}

TEST(BatchMaker, gives_every_sample_exactly_once_per_epoch) {
  const BatchMaker maker(images(103), options(10));
  for (std::int64_t epoch = 0; epoch < 3; ++epoch) {
    std::vector<std::int64_t> all = epoch_of(maker, epoch);
    EXPECT_NE(all, counted(103));
    std::ranges::sort(all);
    EXPECT_EQ(all, counted(103));
  }
}

TEST(BatchMaker, ends_an_epoch_with_a_shorter_batch) {
  const BatchMaker maker(images(23), options(10));
  EXPECT_EQ(maker.batches_per_epoch(), 3);
  EXPECT_EQ(maker.make(1).target.size(0), 10);
  const Batch last = maker.make(5);
  EXPECT_EQ(last.epoch, 1);
  EXPECT_EQ(last.input.sizes(), torch::IntArrayRef({3, 2, 6, 5}));
  EXPECT_EQ(last.target.sizes(), torch::IntArrayRef({3}));
  EXPECT_EQ(maker.make(6).target.size(0), 10);
  EXPECT_EQ(maker.make(6).epoch, 2);
}

TEST(BatchMaker, makes_one_batch_of_everything_if_the_batch_size_allows_it) {
  EXPECT_EQ(BatchMaker(images(20), options(20)).batches_per_epoch(), 1);
  const BatchMaker maker(images(20), options(std::numeric_limits<std::int64_t>::max()));
  EXPECT_EQ(maker.batches_per_epoch(), 1);
  EXPECT_EQ(maker.make(4).target.size(0), 20);
}

TEST(BatchMaker, shuffles_anew_in_every_epoch_and_for_every_seed) {
  const BatchMaker one(images(50), options(10, 1)), other(images(50), options(10, 2));
  EXPECT_NE(epoch_of(one, 0), epoch_of(one, 1));
  EXPECT_NE(epoch_of(one, 0), epoch_of(other, 0));
  EXPECT_EQ(epoch_of(one, 0), epoch_of(BatchMaker(images(50), options(7, 1)), 0));
}

TEST(BatchMaker, shuffles_without_preferring_a_place) {
  // Each of 5 samples comes first in 1/5 of the epochs: 400 of 2000, with a deviation of 18.
  const BatchMaker maker(images(5), options(1));
  std::vector<int> first(5);
  for (std::int64_t epoch = 0; epoch < 2000; ++epoch) ++first[maker.samples(5 * epoch)[0]];
  for (const int count : first) EXPECT_NEAR(count, 400, 90);
}

TEST(BatchMaker, keeps_the_order_of_the_data_without_shuffling) {
  BatchOptions plain = options(10);
  plain.shuffle = false;
  const BatchMaker maker(images(23), plain);
  EXPECT_EQ(epoch_of(maker, 0), counted(23));
  EXPECT_EQ(epoch_of(maker, 4), counted(23));
}

TEST(BatchMaker, scales_and_normalises_every_channel) {
  const auto data = images(8);
  const Batch batch = BatchMaker(data, options(8)).make(0);
  ASSERT_EQ(batch.input.scalar_type(), torch::kFloat32);
  for (std::int64_t i = 0; i < 8; ++i) {
    const auto sample = batch.target[i].item<std::int64_t>();
    EXPECT_TRUE(torch::allclose(batch.input[i], normalised(*data, sample), 1e-6, 1e-6)) << sample;
  }
}

TEST(BatchMaker, copies_the_rows_of_a_text) {
  const torch::Tensor tokens = torch::arange(60, torch::kInt64).view({20, 3});
  const auto data = std::make_shared<Dataset>(Dataset{"text", tokens, tokens + 1, 61, {}, {}});
  const Batch batch = BatchMaker(data, options(6)).make(1);
  EXPECT_EQ(batch.input.sizes(), torch::IntArrayRef({6, 3}));
  EXPECT_TRUE(torch::equal(batch.target, batch.input + 1));
  const std::vector<std::int64_t> samples = BatchMaker(data, options(6)).samples(1);
  for (int i = 0; i < 6; ++i) EXPECT_TRUE(torch::equal(batch.input[i], tokens[samples[i]]));
}

TEST(BatchMaker, gives_the_same_batch_for_an_index_whatever_was_asked_before) {
  BatchOptions augmented = options(10);
  augmented.augment = true;
  const BatchMaker forward(images(23), augmented), backward(images(23), augmented);
  std::vector<Batch> batches;
  for (std::int64_t i = 0; i < 9; ++i) batches.push_back(forward.make(i));
  for (std::int64_t i = 8; i >= 0; --i) EXPECT_TRUE(same(backward.make(i), batches[i])) << i;
}

TEST(BatchMaker, gives_the_same_batches_to_several_threads_at_once) {
  BatchOptions augmented = options(10);
  augmented.augment = true;
  const BatchMaker maker(images(23), augmented);
  std::vector<std::vector<Batch>> seen(3);
  {
    std::vector<std::jthread> threads;
    for (auto& mine : seen) {
      threads.emplace_back([&] {
        for (std::int64_t i = 0; i < 30; ++i) mine.push_back(maker.make(i));
      });
    }
  }
  for (std::int64_t i = 0; i < 30; ++i) {
    EXPECT_TRUE(same(seen[0][i], seen[1][i])) << i;
    EXPECT_TRUE(same(seen[0][i], seen[2][i])) << i;
  }
}

/// The crop at (down, right) of `image` after padding by raw zeros, mirrored if `flip`.
torch::Tensor jittered(const torch::Tensor& image, bool flip, std::int64_t down, std::int64_t right) {
  const torch::Tensor padded = torch::constant_pad_nd(image, {4, 4, 4, 4});
  const torch::Tensor crop = padded.slice(1, down + 4, down + 10).slice(2, right + 4, right + 9);
  return flip ? crop.flip({2}) : crop;
}

/// Which of the 162 augmentations of a sample `output` is: flip, down, right; empty if none.
std::vector<std::int64_t> jitter_of(const Dataset& data, std::int64_t sample, const torch::Tensor& output) {
  Dataset one = data;
  for (std::int64_t code = 0; code < 162; ++code) {
    const std::int64_t flip = code / 81, down = code / 9 % 9 - 4, right = code % 9 - 4;
    one.inputs = jittered(data.inputs[sample], flip != 0, down, right).unsqueeze(0);
    if (torch::allclose(normalised(one, 0), output, 1e-6, 1e-6)) return {flip, down, right};
  }
  return {};
}

TEST(BatchMaker, augments_by_a_mirror_and_a_crop_of_the_image_padded_with_raw_zeros) {
  const auto data = images(60);
  BatchOptions augmented = options(60);
  augmented.augment = true;
  const Batch batch = BatchMaker(data, augmented).make(0);
  std::set<std::int64_t> downs, rights;
  std::int64_t flips = 0;
  for (std::int64_t i = 0; i < 60; ++i) {
    const auto jitter = jitter_of(*data, batch.target[i].item<std::int64_t>(), batch.input[i]);
    ASSERT_EQ(jitter.size(), 3u) << i;
    flips += jitter[0];
    downs.insert(jitter[1]);
    rights.insert(jitter[2]);
  }
  EXPECT_NEAR(flips, 30, 16);
  EXPECT_EQ(downs.size(), 9u);
  EXPECT_EQ(rights.size(), 9u);
}

TEST(BatchMaker, augments_a_sample_differently_in_every_epoch_and_for_every_seed) {
  BatchOptions augmented = options(40);
  augmented.augment = true;
  augmented.shuffle = false;
  const BatchMaker maker(images(40), augmented);
  augmented.seed = 2;
  const BatchMaker other(images(40), augmented);
  EXPECT_FALSE(torch::equal(maker.make(0).input, maker.make(1).input));
  EXPECT_FALSE(torch::equal(maker.make(0).input, other.make(0).input));
  EXPECT_TRUE(torch::equal(maker.make(1).input, maker.make(1).input));
}

TEST(BatchMaker, augments_a_sample_alike_in_whichever_batch_it_lands) {
  BatchOptions small = options(3), large = options(20);
  small.augment = large.augment = true;
  const BatchMaker threes(images(20), small), whole(images(20), large);
  const Batch all = whole.make(0);
  EXPECT_TRUE(torch::equal(threes.make(2).input, all.input.slice(0, 6, 9)));
}

TEST(BatchMaker, refuses_options_that_make_no_batch) {
  EXPECT_MENTIONS(complaint<UsageError>([] { BatchMaker(images(5), options(0)); }),
                  "batch size 0 is not allowed: it must be at least 1");
  const torch::Tensor tokens = torch::zeros({4, 3}, torch::kInt64);
  const auto text = std::make_shared<Dataset>(Dataset{"psalms", tokens, tokens, 1, {}, {}});
  BatchOptions augmented;
  augmented.augment = true;
  EXPECT_MENTIONS(complaint<UsageError>([&] { BatchMaker(text, augmented); }), "data set 'psalms' is text: leave out --augment");
  const BatchMaker maker(images(5), options(2));
  EXPECT_MENTIONS(complaint<UsageError>([&] { maker.make(-1); }), "batch -1 does not exist");
}

TEST(BatchMaker, refuses_a_data_set_whose_tensors_it_would_misread) {
  const auto refusal = [](auto spoil) {
    const auto data = images(6);
    spoil(*data);
    return complaint<UsageError>([&] { BatchMaker(data, options(2)); });
  };
  EXPECT_MENTIONS(refusal([](Dataset& data) { data.targets = torch::zeros({5}, torch::kInt64); }),
                  "data set 'noise' cannot be batched: it has 6 inputs, but 5 targets");
  EXPECT_MENTIONS(refusal([](Dataset& data) { data.targets = torch::zeros({6}); }), "targets must be int64");
  EXPECT_MENTIONS(refusal([](Dataset& data) { data.inputs = data.inputs.transpose(2, 3); }), "call contiguous()");
  EXPECT_MENTIONS(refusal([](Dataset& data) { data.inputs = data.inputs.to(torch::kFloat32); }), "must be uint8 images");
  EXPECT_MENTIONS(refusal([](Dataset& data) { data.mean = {0.5}; }), "one number for each of 2 channels");
  EXPECT_MENTIONS(refusal([](Dataset& data) { data.deviation = {1, 0}; }), "deviations must be above 0");
  EXPECT_MENTIONS(refusal([](Dataset& data) { data.inputs = torch::Tensor(); }), "must both be given");
  EXPECT_MENTIONS(refusal([](Dataset& data) { data.inputs = data.inputs.slice(0, 0, 0); }), "it holds no sample");
}

}  // namespace data_batch_maker_test
}  // namespace rubato::test
