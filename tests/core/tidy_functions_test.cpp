// Functions stay short, and nothing stands twice.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "core/functions.h"
#include "core/source_text.h"

namespace rubato {
namespace core_tidy_functions_test {

using ::testing::ElementsAre;

constexpr int most_lines = 60;           // of a function, without the data of a table in it
constexpr std::size_t longest_copy = 9;  // lines that may stand twice

TEST(FunctionScan, finds_functions_and_their_lengths_in_the_layout_of_the_project) {
  const std::string text = R"code(#include <x>
namespace {
const std::map<int, int> table = {{1, 2},
                                  {3, 4}};  // no function {
struct Options {
  int number = 0;
  std::vector<int> many{1, 2};
  bool operator==(const Options&) const = default;
  int twice() const { return 2 * number; }
};

template <class T>
class Holder : public Base<T> {
 public:
  explicit Holder(T value)
      : value_{std::move(value)},
        other_(1) {
    check("}", '}', 1'000);
  }

 private:
  T value_{};
};
}  // namespace

std::function<void(int)> long_one(int a,
                                  int b = 2) {
  const auto inner = [&](int x) {
    if (x > a) return;
  };
  struct Local {
    int f() { return 1; }
  };
  return inner;
}

const std::vector<int>& numbers() {
  static const std::vector<int> all = {
      1,
      2};
  return all;
}
)code";
  std::vector<std::string> seen;
  for (const test::FoundFunction& function : test::functions_in(text)) {
    seen.push_back(function.head + " " + std::to_string(function.line) + " " + std::to_string(function.lines) + " " +
                   std::to_string(function.table));
  }
  EXPECT_THAT(seen, ElementsAre("int twice() const 9 1 0", "explicit Holder(T value) : value_std::move(value), other_(1) 15 5 0",
                                "std::function<void(int)> long_one(int a, int b = 2) 26 10 0",
                                "const std::vector<int>& numbers() 37 6 3"));
}

TEST(TidyFunctions, are_short) {
  // One call for each row of a table that a template has to see as code.
  const std::set<std::string> tables = {"include/rubato/config/options_table.h"};
  int seen = 0;
  for (const auto& file : test::sources_under({"include", "src", "apps"})) {
    if (tables.contains(file.string())) continue;
    for (const test::FoundFunction& function : test::functions_in(test::text_of(file))) {
      EXPECT_LE(function.lines - function.table, most_lines) << file << ":" << function.line << ": " << function.head;
      ++seen;
    }
  }
  EXPECT_GT(seen, 1500);
}

/// A line of code that says something, and where it stands.
struct Line {
  std::string text;
  int number;
};

bool says_something(const std::string& line) {
  if (line.starts_with("#include") || line.starts_with("//") || line.starts_with("namespace")) return false;
  if (line == "public:" || line == "private:" || line == "protected:") return false;
  return std::any_of(line.begin(), line.end(), [](unsigned char c) { return std::isalpha(c) != 0; });
}

std::vector<Line> lines_of(const std::string& text) {
  std::vector<Line> lines;
  std::istringstream all(text);
  int number = 1;
  for (std::string line; std::getline(all, line); ++number) {
    line.erase(0, line.find_first_not_of(' '));
    if (says_something(line)) lines.push_back({line, number});
  }
  return lines;
}

/// Runs of lines that stand in files that it is shown more than once.
class Repetitions {
 public:
  void look_at(const std::string& file, const std::string& text) {
    const std::vector<Line> lines = lines_of(text);
    for (std::size_t begin = 0; begin + longest_copy < lines.size(); ++begin) {
      std::string run;
      for (std::size_t i = begin; i <= begin + longest_copy; ++i) run += lines[i].text + "\n";
      const std::string place = file + ":" + std::to_string(lines[begin].number);
      const auto [found, is_new] = first_.emplace(run, place);
      if (!is_new) repeated_.push_back(place + " repeats " + found->second);
    }
  }
  std::size_t runs() const { return first_.size(); }
  const std::vector<std::string>& repeated() const { return repeated_; }

 private:
  std::map<std::string, std::string> first_;  // run of lines, where it stands
  std::vector<std::string> repeated_;
};

TEST(RepetitionScan, finds_ten_equal_lines_whatever_their_indent_and_what_says_nothing) {
  const auto text = [](int lines, const std::string& between) {
    std::string all;
    for (int i = 0; i < lines; ++i) all += between + "call(" + std::to_string(i) + ");\n";
    return all;
  };
  Repetitions one, other;
  one.look_at("a", text(10, "  "));
  one.look_at("b", "other();\n" + text(10, "  }\n\n// why\n#include <x>\n    "));
  EXPECT_THAT(one.repeated(), ElementsAre("b:6 repeats a:1"));
  other.look_at("a", text(10, ""));
  other.look_at("b", text(9, ""));
  EXPECT_THAT(other.repeated(), ElementsAre());
}

TEST(TidyFunctions, nothing_stands_twice) {
  Repetitions repetitions;
  for (const auto& file : test::sources_under({"src"})) repetitions.look_at(file.string(), test::text_of(file));
  EXPECT_THAT(repetitions.repeated(), ElementsAre());
  EXPECT_GT(repetitions.runs(), 5000U);
}

}  // namespace core_tidy_functions_test
}  // namespace rubato
