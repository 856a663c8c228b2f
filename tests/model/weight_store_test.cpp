#include "rubato/model/weight_store.h"
#include "rubato/model/model.h"

#include <gtest/gtest.h>

#include <cmath>

#include <atomic>
#include <cstdint>
#include <set>
#include <sstream>
#include <thread>

#include "rubato/core/error.h"
#include "support/lab.h"

namespace rubato {
namespace model_weight_store_test {

using test::generator;

/// One linear block "a" of 2 x 2 with the weights 1, 2, 3, 4.
Model one_block() {
  torch::nn::Linear linear(torch::nn::LinearOptions(2, 2).bias(false));
  torch::NoGradGuard no_grad;
  linear->weight.copy_(torch::tensor({{1.f, 2.f}, {3.f, 4.f}}));
  return model_from(std::vector<Block>{{"a", torch::nn::AnyModule(linear)}});
}

StoreOptions plain(double rate) {
  return {.optimizer = {.learning_rate = {.base = rate}}};
}

class WeightStoreTest : public ::testing::Test {
 protected:
  Bystander me;
};

TEST_F(WeightStoreTest, publishes_beside_and_leaves_what_readers_hold) {
  WeightStore store(one_block(), plain(1));
  const Snapshot before = store.read(me, 0);
  EXPECT_EQ(store.apply(me, 0, {torch::ones({2, 2})}, 0), 1);
  const Snapshot after = store.read(me, 0);
  EXPECT_TRUE(torch::equal(before.parameters->tensors[0], torch::tensor({{1.f, 2.f}, {3.f, 4.f}})));
  EXPECT_TRUE(torch::equal(after.parameters->tensors[0], torch::tensor({{0.f, 1.f}, {2.f, 3.f}})));
  EXPECT_EQ(before.parameters->version, 0);
  EXPECT_EQ(after.parameters->version, 1);
}

TEST_F(WeightStoreTest, uses_the_memory_of_a_snapshot_again_only_when_nobody_holds_it) {
  WeightStore store(one_block(), plain(0.1));
  Snapshot held = store.read(me, 0);
  const void* held_memory = held.parameters->tensors[0].data_ptr();
  std::set<const void*> seen;
  for (int i = 0; i < 20; ++i) {
    store.apply(me, 0, {torch::ones({2, 2})}, i);
    seen.insert(store.read(me, 0).parameters->tensors[0].data_ptr());
  }
  EXPECT_FALSE(seen.contains(held_memory));
  EXPECT_LE(seen.size(), 2u);  // two buffers take turns
}

TEST_F(WeightStoreTest, counts_staleness_as_version_at_apply_minus_version_at_read) {
  WeightStore store(one_block(), plain(0.1));
  for (int i = 0; i < 3; ++i) store.apply(me, 0, {torch::ones({2, 2})}, i);  // fresh
  store.apply(me, 0, {torch::ones({2, 2})}, 1);                              // version 3, evaluated at 1
  const StalenessCount count = store.staleness(0);
  EXPECT_EQ(count.updates, 4);
  EXPECT_EQ(count.sum, 2);
  EXPECT_EQ(count.max, 2);
}

TEST_F(WeightStoreTest, scales_stale_gradients_when_asked) {
  StoreOptions options = plain(1);
  options.scale_by_staleness = true;
  WeightStore store(one_block(), options);
  store.apply(me, 0, {torch::zeros({2, 2})}, 0);
  store.apply(me, 0, {torch::ones({2, 2})}, 0);  // staleness 1: half
  EXPECT_TRUE(torch::equal(store.read(me, 0).parameters->tensors[0], torch::tensor({{.5f, 1.5f}, {2.5f, 3.5f}})));
}

TEST_F(WeightStoreTest, skip_advances_the_version_and_moves_neither_weights_nor_momentum) {
  WeightStore skipping(one_block(), test::sgd(0.1)), straight(one_block(), test::sgd(0.1));
  skipping.skip(me, 0);
  skipping.skip(me, 0);
  for (int i = 0; i < 5; ++i) {
    skipping.apply(me, 0, {torch::ones({2, 2})}, i + 2);
    straight.apply(me, 0, {torch::ones({2, 2})}, i);
  }
  EXPECT_EQ(skipping.read(me, 0).parameters->version, 7);
  EXPECT_EQ(skipping.digest(), straight.digest());
  EXPECT_EQ(skipping.staleness(0).updates, 5);
}

TEST_F(WeightStoreTest, leaves_a_parameter_without_gradient_alone) {
  WeightStore store(one_block(), test::sgd());
  const std::string before = store.digest();
  store.apply(me, 0, {torch::Tensor()}, 0);
  EXPECT_EQ(store.digest(), before);
}

/// Batch norm with momentum 0.1 whose passes have batch means 5 and 2.5: r <- 0.9 r + 0.1 s, one after the other.
TEST_F(WeightStoreTest, merges_running_means_as_if_passes_had_followed_each_other) {
  torch::nn::Sequential layers(torch::nn::BatchNorm1d(2));
  WeightStore store(model_from(layers), plain(0.1));
  const TensorSetPtr read = store.read(me, 0).buffers;  // mean 0, variance 1, count 0
  const auto after = [](float mean) {
    return std::vector<torch::Tensor>{torch::full({2}, mean), torch::ones({2}), torch::tensor(1, torch::kInt64)};
  };
  store.merge_buffers(me, 0, read, after(0.5f));
  store.merge_buffers(me, 0, read, after(0.25f));  // another pass that had read the same statistics
  const TensorSetPtr merged = store.read(me, 0).buffers;
  EXPECT_TRUE(torch::allclose(merged->tensors[0], torch::full({2}, 0.7f)));
  EXPECT_EQ(merged->tensors[2].item<std::int64_t>(), 2);
  EXPECT_EQ(store.buffer_decays(0)[0], 0.9);
  EXPECT_TRUE(std::isnan(store.buffer_decays(0)[2])) << "a counter is no mean";
}

TEST_F(WeightStoreTest, statistics_stay_means_however_many_passes_are_under_way) {
  torch::nn::Sequential layers(torch::nn::BatchNorm1d(2));
  WeightStore store(model_from(layers), plain(0.1));
  const TensorSetPtr read = store.read(me, 0).buffers;
  for (int i = 0; i < 64; ++i) {  // all have read variance 1 and seen variance 0
    store.merge_buffers(me, 0, read, {torch::zeros({2}), torch::full({2}, 0.9f), torch::tensor(1, torch::kInt64)});
  }
  const torch::Tensor variance = store.read(me, 0).buffers->tensors[1];
  EXPECT_GE(variance.min().item<float>(), 0);
  EXPECT_NEAR(variance[0].item<float>(), std::pow(0.9, 64), 1e-5);
}

TEST_F(WeightStoreTest, concurrent_writers_lose_no_update) {
  WeightStore store(one_block(), plain(1));
  std::atomic<bool> torn{false};
  {
    std::vector<std::jthread> threads;
    for (int t = 0; t < 3; ++t) {
      threads.emplace_back([&] {
        Bystander writer;
        for (int i = 0; i < 100; ++i) store.apply(writer, 0, {torch::full({2, 2}, -1.f)}, 0);
      });
    }
    threads.emplace_back([&] {
      Bystander reader;
      for (int i = 0; i < 300; ++i) {
        const Snapshot now = store.read(reader, 0);
        const auto version = static_cast<float>(now.parameters->version);
        const torch::Tensor expected = torch::tensor({{1.f, 2.f}, {3.f, 4.f}}) + version;
        if (!torch::equal(now.parameters->tensors[0], expected)) torn = true;
      }
    });
  }
  EXPECT_FALSE(torn);
  EXPECT_EQ(store.read(me, 0).parameters->version, 300);
  EXPECT_TRUE(torch::equal(store.read(me, 0).parameters->tensors[0], torch::tensor({{301.f, 302.f}, {303.f, 304.f}})));
}

TEST_F(WeightStoreTest, continues_bit_for_bit_after_save_and_load) {
  for (const StoreOptions& options : {test::sgd(), test::adam()}) {
    WeightStore whole(one_block(), options), first(one_block(), options), second(one_block(), options);
    const auto step = [&](WeightStore& store, int i) {
      store.apply(me, 0, {torch::empty({2, 2}).normal_(0, 1, generator(static_cast<std::uint64_t>(i)))}, i);
    };
    for (int i = 0; i < 10; ++i) step(whole, i);
    for (int i = 0; i < 5; ++i) step(first, i);
    std::stringstream bytes;
    torch::serialize::OutputArchive out;
    first.save(out);
    out.save_to(bytes);
    torch::serialize::InputArchive in;
    in.load_from(bytes);
    second.load(in);
    EXPECT_EQ(second.digest(), first.digest());
    for (int i = 5; i < 10; ++i) step(second, i);
    EXPECT_EQ(second.digest(), whole.digest());
    EXPECT_EQ(second.read(me, 0).parameters->version, 10);
  }
}

TEST_F(WeightStoreTest, digest_depends_on_every_bit) {
  WeightStore a(one_block(), plain(1)), b(one_block(), plain(1));
  EXPECT_EQ(a.digest(), b.digest());
  torch::Tensor tiny = torch::zeros({2, 2});
  tiny[1][1] = 1e-6f;
  b.apply(me, 0, {tiny}, 0);
  EXPECT_NE(a.digest(), b.digest());
}

}  // namespace model_weight_store_test
}  // namespace rubato
