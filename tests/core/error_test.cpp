#include "rubato/core/error.h"

#include <gtest/gtest.h>

namespace rubato {
namespace core_error_test {

TEST(Error, proposes_the_nearest_known_name) {
  EXPECT_EQ(nearest_name("dgd", {"serial", "hogwild", "ddg"}), "ddg");
  EXPECT_EQ(nearest_name("pdasgd", {"serial", "pd-asgd"}), "pd-asgd");
}

TEST(Error, proposes_nothing_when_nothing_is_near) {
  EXPECT_EQ(nearest_name("transformer", {"ddg", "serial"}), "");
}

TEST(Error, names_the_value_and_all_known_ones) {
  const UsageError error = unknown_name("schedule", "hogwilde", {"serial", "hogwild"});
  EXPECT_STREQ(error.what(), "unknown schedule 'hogwilde': did you mean 'hogwild'? Known: serial, hogwild.");
  EXPECT_EQ(error.code(), ExitCode::usage);
}

}  // namespace core_error_test
}  // namespace rubato
