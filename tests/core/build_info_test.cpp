#include "rubato/core/build_info.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>

namespace rubato {
namespace core_build_info_test {

/// A host may be named so that a line of config.toml would end in it, or that JSON would refuse it.
TEST(BuildInfo, names_of_machines_cannot_break_the_files_they_go_into) {
  EXPECT_EQ(printable("a\nsteps = 9999"), "a?steps = 9999");
  EXPECT_EQ(printable("ctl\x01host \xff L\xe9gacy\x7f"), "ctl?host ? L?gacy?");
  EXPECT_EQ(printable("Debian GNU/Linux 12 (bookworm), 2 processors"), "Debian GNU/Linux 12 (bookworm), 2 processors");
  for (const char letter : host_info()) EXPECT_TRUE(letter >= ' ' && letter <= '~');
}

TEST(BuildInfo, has_four_lines_with_the_prefix) {
  const std::string text = version_text("# ");
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 3);
  EXPECT_EQ(text.find("# rubato "), 0u);
  for (const char* line : {"\n# libtorch ", "\n# built with ", "\n# host "})
    EXPECT_NE(text.find(line), std::string::npos) << line;
}

}  // namespace core_build_info_test
}  // namespace rubato
