#include "rubato/core/registry.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <thread>

namespace core_registry_test {

using namespace rubato;
using ::testing::HasSubstr;

struct Thing {
  std::string name;
  std::vector<OptionSpec> options = {};
  CompleteOptions complete = {};
  CheckOptions check = {};
};

std::string refusal(Registry<Thing>& things, Thing thing) {
  try {
    things.add(std::move(thing));
  } catch (const std::logic_error& error) {
    return error.what();
  }
  return "";
}

TEST(Registry, finds_what_was_added_and_suggests_the_nearest) {
  Registry<Thing> things("thing", {{.name = "first"}});
  const Thing& first = things.find("first");
  EXPECT_TRUE(things.add({.name = "second"}));
  for (int i = 0; i < 1000; ++i) things.add({.name = "n" + std::to_string(i)});
  EXPECT_EQ(&things.find("first"), &first) << "entries stay where they are";
  EXPECT_EQ(things.all()[1].name, "second");
  try {
    things.find("secand");
    FAIL();
  } catch (const UsageError& error) {
    EXPECT_THAT(error.what(), HasSubstr("unknown thing 'secand': did you mean 'second'?"));
  }
}

TEST(Registry, refuses_a_name_twice_and_what_cannot_be_a_flag) {
  Registry<Thing> things("thing", {{.name = "first"}});
  EXPECT_THAT(refusal(things, {.name = "first"}), HasSubstr("thing 'first': there is one of this name already"));
  for (const char* name : {"", "-a", "A", "two words", "a_b"}) {
    EXPECT_THAT(refusal(things, {.name = name}), HasSubstr("lower-case")) << name;
    EXPECT_THAT(refusal(things, {.name = "fine", .options = {{.name = name, .usual = 1, .help = ""}}}), HasSubstr("lower-case"));
  }
  EXPECT_THAT(refusal(things, {.name = "fine", .options = {{.name = "name", .usual = 1, .help = ""}}}), HasSubstr("not 'name'"));
  EXPECT_EQ(things.all().size(), 1u) << "what was refused is not there";
}

TEST(Registry, lets_entries_share_an_option_that_is_the_same) {
  const OptionSpec size{.name = "size", .usual = 1, .help = "how large"};
  OptionSpec larger = size;
  larger.usual = 2;
  Registry<Thing> things("thing", {{.name = "first", .options = {size}}});
  EXPECT_EQ(refusal(things, {.name = "second", .options = {size}}), "");
  EXPECT_THAT(refusal(things, {.name = "third", .options = {larger}}), HasSubstr("another thing has an option 'size'"));
  EXPECT_THAT(refusal(things, {.name = "third", .options = {size, size}}), HasSubstr("declares the option 'size' twice"));
}

TEST(Registry, lets_an_option_depend_on_another_of_the_same_entry) {
  const OptionSpec shape{.name = "shape", .usual = "round", .help = "round or long"},
      size{.name = "size", .usual = 1, .help = ""};
  OptionSpec of_long = size;
  of_long.only_if = {"shape", "long"};
  Registry<Thing> things("thing", {{.name = "first", .options = {size}}});
  EXPECT_THAT(refusal(things, {.name = "second", .options = {of_long}}),
              HasSubstr("'size' depends on 'shape', which it has not"));
  EXPECT_EQ(refusal(things, {.name = "second", .options = {shape, of_long}}), "") << "entries may differ in that";
}

TEST(Registry, may_be_written_by_several_threads) {
  Registry<Thing> things("thing", {});
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&things, t] {
      for (int i = 0; i < 100; ++i) things.add({.name = "n" + std::to_string(100 * t + i)});
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(things.all().size(), 400u);
}

TEST(Registry, completes_values_before_they_are_checked) {
  const Thing thing{
      .name = "thing",
      .options = {{.name = "whole", .usual = 0.0, .help = ""}, {.name = "part", .usual = 0.0, .help = "", .worked_out = true}},
      .complete =
          [](OptionValues& values, const RunFacts& facts) {
            if (!values.has("part")) values.set("part", values.get<double>("whole") / facts.replicas);
          },
      .check =
          [](const OptionValues& values, const RunFacts&) {
            if (values.get<double>("part") > 1) throw UsageError("too large a part");
          }};
  EXPECT_EQ(checked_values(thing, {{"whole", 3}}, {.replicas = 4}).get<double>("part"), 0.75);
  EXPECT_EQ(completed_values(thing, {{"whole", 3}}, {}).get<double>("part"), 3);
  EXPECT_THROW(checked_values(thing, {{"whole", 3}}, {}), UsageError);
}

}  // namespace core_registry_test
