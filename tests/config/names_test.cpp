// What the rest of rubato needs to know of a schedule, a coupling, a data set, ... its entry says. Nobody decides by its name: an
// entry from outside would be forgotten there.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <regex>
#include <set>
#include <string>
#include <vector>

#include "core/source_text.h"
#include "rubato/config/entries.h"

namespace rubato {
namespace config_names_test {

using test::sources_under;
using test::text_of;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

/// The literals that `text` compares something with, on either side.
std::vector<std::string> compared_with(const std::string& text) {
  static const std::string literal = R"re("((?:[^"\\\n]|\\.)*)"(?:s|sv)?)re", wrapped = R"re((?:[A-Za-z_:]+\s*[({]\s*)?)re";
  static const std::regex right("[=!]=\\s*" + wrapped + literal), left(literal + R"re(\s*[)}]?\s*[=!]=)re");
  std::vector<std::string> found;
  for (const std::regex& side : {right, left}) {
    for (std::sregex_iterator match(text.begin(), text.end(), side), end; match != end; ++match) found.push_back((*match)[1]);
  }
  return found;
}

TEST(Names, compared_are_found_on_either_side) {
  EXPECT_THAT(compared_with(R"(if (o.coupling == "none") return;)"), ElementsAre("none"));
  EXPECT_THAT(compared_with(R"(x !=
    std::string_view("ddg"))"),
              ElementsAre("ddg"));
  EXPECT_THAT(compared_with(R"(return "admm" == name && "lap"sv != name;)"), ElementsAre("admm", "lap"));
  EXPECT_THAT(compared_with(R"(std::string{"sgd"} == o.optimizer)"), ElementsAre("sgd"));
  EXPECT_THAT(compared_with(R"(o.coupling = "none"; use({"ddg", "dni"}); a == b ? "lap" : "admm")"), IsEmpty());
}

TEST(Names, of_entries_are_compared_nowhere) {
  std::set<std::string> names;
  for (const EntryKind& kind : entry_kinds()) {
    for (const EntryView& entry : kind.entries()) names.insert(entry.name);
  }
  ASSERT_THAT(names, Contains("none"));
  int comparisons = 0;
  for (const std::filesystem::path& file : sources_under({"src", "apps", "include"})) {
    for (const std::string& literal : compared_with(text_of(file))) {
      ++comparisons;
      EXPECT_FALSE(names.contains(literal)) << file << " decides by the name '" << literal << "': give its entry a field";
    }
  }
  EXPECT_GT(comparisons, 20);
}

}  // namespace config_names_test
}  // namespace rubato
