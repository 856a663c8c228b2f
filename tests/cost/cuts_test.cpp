#include "rubato/cost/cuts.h"

#include <gtest/gtest.h>

#include "rubato/core/error.h"

namespace rubato {
namespace cost_cuts_test {

std::vector<BlockCost> costs(const std::vector<double>& seconds) {
  std::vector<BlockCost> all;
  for (const double s : seconds) all.push_back({s / 3, 2 * s / 3, 0});
  return all;
}

TEST(Cuts, balance_equal_blocks_evenly) {
  EXPECT_EQ(balanced_cuts(costs({1, 1, 1, 1, 1, 1}), 3), (std::vector<int>{2, 4}));
}

TEST(Cuts, make_the_slowest_stage_as_fast_as_possible) {
  EXPECT_EQ(balanced_cuts(costs({9, 1, 1, 1, 1}), 2), (std::vector<int>{1}));
  EXPECT_EQ(balanced_cuts(costs({1, 1, 1, 1, 9}), 3).back(), 4);
}

TEST(Cuts, one_stage_needs_none) {
  EXPECT_TRUE(balanced_cuts(costs({1, 2}), 1).empty());
}

TEST(Cuts, more_stages_than_blocks_are_refused) {
  EXPECT_THROW(balanced_cuts(costs({1, 2}), 3), UsageError);
  EXPECT_THROW(balanced_cuts(costs({1, 2}), 0), UsageError);
}

TEST(Cuts, are_read_from_text_and_counted) {
  EXPECT_EQ(parse_cuts("2,4", 3), (std::vector<int>{2, 4}));
  EXPECT_THROW(parse_cuts("2", 3), UsageError);
  EXPECT_THROW(parse_cuts("2,x", 3), UsageError);
  EXPECT_THROW(parse_cuts("2,,4", 4), UsageError);
}

}  // namespace cost_cuts_test
}  // namespace rubato
