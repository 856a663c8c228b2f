// Code that a page shows is code that is built.
#include <gtest/gtest.h>

#include <regex>
#include <string>

#include "core/source_text.h"

namespace core_pages_test {

using rubato::test::sources_under;
using rubato::test::text_of;

/// Lines without their indent, which depends on where code stands.
std::string flat(const std::string& code) {
  return std::regex_replace(code, std::regex("(^|\n) +"), "$1");
}

TEST(Pages, of_your_own_method_show_the_consumer_as_it_is) {
  std::string code;
  for (const auto& file : sources_under({"tests/consumer"})) code += flat(text_of(file));
  const std::string page = text_of("docs/your_own_method.md"), fence = "```cpp\n";
  int seen = 0;
  for (std::size_t at = page.find(fence); at != std::string::npos; at = page.find(fence, at), ++seen) {
    at += fence.size();
    const std::string block = flat(page.substr(at, page.find("```", at) - at));
    EXPECT_NE(code.find(block), std::string::npos) << "the page shows what is not in tests/consumer:\n" << block;
  }
  EXPECT_GT(seen, 8);
}

}  // namespace core_pages_test
