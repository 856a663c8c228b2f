#include "rubato/core/partition.h"

#include <gtest/gtest.h>

namespace rubato {
namespace core_partition_test {

TEST(Partition, makes_the_heaviest_range_as_light_as_possible) {
  EXPECT_EQ(linear_partition({1, 1, 1, 1, 1, 1}, 3), (std::vector<int>{2, 4}));
  EXPECT_EQ(linear_partition({9, 1, 1, 1, 1}, 2), (std::vector<int>{1}));
  EXPECT_EQ(linear_partition({1, 2, 3, 4, 5}, 2), (std::vector<int>{3}));
}

TEST(Partition, leaves_no_range_empty) {
  EXPECT_EQ(linear_partition({0, 0, 7}, 3), (std::vector<int>{1, 2}));
  EXPECT_TRUE(linear_partition({3}, 1).empty());
}

}  // namespace core_partition_test
}  // namespace rubato
