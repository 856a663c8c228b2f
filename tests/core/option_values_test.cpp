#include "rubato/core/option_values.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <limits>

#include "rubato/core/error.h"

namespace core_option_values_test {

using namespace rubato;

TEST(OptionValues, have_the_type_that_they_are_given) {
  const OptionValues values{{"flag", true}, {"whole", 3}, {"real", 0.5}, {"text", "three"}};
  EXPECT_TRUE(values.get<bool>("flag"));
  EXPECT_EQ(values.get<int>("whole"), 3);
  EXPECT_EQ(values.get<std::int64_t>("whole"), 3);
  EXPECT_EQ(values.get<double>("whole"), 3);
  EXPECT_EQ(values.get<double>("real"), 0.5);
  EXPECT_EQ(values.get<std::string>("text"), "three");
  EXPECT_EQ(to_text(*values.find("flag")) + to_text(*values.find("whole")) + to_text(*values.find("real")), "true30.5");
}

TEST(OptionValues, refuse_to_be_read_as_what_they_are_not) {
  const OptionValues values{{"flag", true}, {"large", std::int64_t{1} << 40}, {"text", "3"}};
  EXPECT_THROW(values.get<int>("flag"), std::logic_error);
  EXPECT_THROW(values.get<int>("large"), std::logic_error);
  EXPECT_EQ(values.get<std::int64_t>("large"), std::int64_t{1} << 40);
  EXPECT_THROW(values.get<double>("text"), std::logic_error);
  EXPECT_THROW(values.get<int>("nowhere"), std::logic_error);
  EXPECT_THROW(OptionValue(std::numeric_limits<std::uint64_t>::max()), std::logic_error);
}

TEST(OptionValues, of_an_entry_are_those_given_else_defaults) {
  const std::vector<OptionSpec> specs = {{.name = "rate", .usual = 0.5, .help = "", .low = 0, .high = 2},
                                         {.name = "count", .usual = 4, .help = "", .low = 1},
                                         {.name = "later", .usual = 1, .help = "", .worked_out = true}};
  EXPECT_EQ(own_values(specs, {{"rate", 1}, {"foreign", 7}}), (OptionValues{{"rate", 1.0}, {"count", 4}}));
  EXPECT_EQ(own_values(specs, {{"later", 3}}).get<int>("later"), 3);
  EXPECT_THROW(own_values(specs, {{"rate", 3}}), UsageError);
  EXPECT_THROW(own_values(specs, {{"rate", std::numeric_limits<double>::quiet_NaN()}}), UsageError);
  EXPECT_THROW(own_values(specs, {{"count", 0}}), UsageError);
  EXPECT_THROW(own_values(specs, {{"count", 2.0}}), UsageError);
}

}  // namespace core_option_values_test
