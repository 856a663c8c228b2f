#include "runtimes/absence.h"

#include <gtest/gtest.h>

namespace rubato {
namespace runtimes_absence_test {

using Clock = AwayWatch::Clock;

Clock::time_point at(double seconds) {
  return Clock::time_point() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
}

/// A large model on a slow link: each exchange takes longer than 20 times the silence.
TEST(AwayWatch, an_answer_that_takes_long_comes_in_the_end) {
  AwayWatch watch(1.5);
  const double takes = 100;
  int in_vain = 0;
  double now = 0;
  for (;; ++in_vain) {
    ASSERT_LT(in_vain, 5);
    const double begin = now;
    while (now < begin + takes && !watch.in_vain(at(begin), at(now))) now += 0.1;
    if (now < begin + takes) continue;
    watch.answered(at(begin), at(now));
    break;
  }
  EXPECT_EQ(in_vain, 2);  // after 30 and 60 seconds
  EXPECT_FALSE(watch.in_vain(at(now), at(now + 350))) << "from now on it is known how long it takes";
}

TEST(AwayWatch, nobody_waits_for_one_that_is_away) {
  AwayWatch watch(1.5);
  watch.set_away(true, at(10));
  EXPECT_TRUE(watch.in_vain(at(10), at(10)));
  watch.set_away(false, at(12));
  EXPECT_FALSE(watch.in_vain(at(12), at(13)));
  EXPECT_TRUE(watch.in_vain(at(12), at(14))) << "the question may have been lost with it";
  EXPECT_FALSE(watch.in_vain(at(80), at(90))) << "that is long ago";
}

TEST(AwayWatch, soon_after_an_absence_an_answer_may_still_take_as_long_as_it_does) {
  AwayWatch watch(1.5);
  watch.answered(at(0), at(5));
  watch.set_away(true, at(10));
  watch.set_away(false, at(11));
  EXPECT_FALSE(watch.in_vain(at(11), at(20)));
  EXPECT_TRUE(watch.in_vain(at(11), at(32)));
}

}  // namespace runtimes_absence_test
}  // namespace rubato
