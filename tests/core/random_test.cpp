#include "rubato/core/random.h"

#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <set>

namespace rubato {
namespace core_random_test {

TEST(RandomStream, is_a_function_of_its_key) {
  RandomStream a(1, RandomUse::shuffle, {3, 4}), b(1, RandomUse::shuffle, {3, 4});
  for (int i = 0; i < 100; ++i) EXPECT_EQ(a(), b());
}

TEST(RandomStream, differs_by_seed_use_and_every_id) {
  std::set<std::uint64_t> first;
  first.insert(RandomStream(1, RandomUse::shuffle, {3, 4})());
  first.insert(RandomStream(2, RandomUse::shuffle, {3, 4})());
  first.insert(RandomStream(1, RandomUse::augment, {3, 4})());
  first.insert(RandomStream(1, RandomUse::shuffle, {4, 3})());
  first.insert(RandomStream(1, RandomUse::shuffle, {3, 5})());
  first.insert(RandomStream(1, RandomUse::shuffle, {3})());
  EXPECT_EQ(first.size(), 6u);
}

TEST(RandomStream, fills_the_range_evenly) {
  RandomStream stream(5, RandomUse::test);
  std::array<int, 10> counts{};
  for (int i = 0; i < 100'000; ++i) ++counts[stream.below(10)];
  for (const int count : counts) EXPECT_NEAR(count, 10'000, 500);  // 5 standard deviations
  double sum = 0;
  for (int i = 0; i < 100'000; ++i) sum += stream.uniform();
  EXPECT_NEAR(sum / 100'000, 0.5, 0.005);
}

}  // namespace core_random_test
}  // namespace rubato
