// tests/FAULTS.md tells the truth: every fault has a row, and what a row names exists.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "core/source_text.h"

namespace rubato::test {
namespace core_faults_table_test {

namespace fs = std::filesystem;

const fs::path root = RUBATO_SOURCE_DIR;

std::vector<std::string> rows() {
  std::vector<std::string> rows;
  std::ifstream table(root / "tests" / "FAULTS.md");
  for (std::string line; std::getline(table, line);) {
    if (line.starts_with("| ") && !line.starts_with("| fault |") && !line.starts_with("| --- |")) rows.push_back(line);
  }
  return rows;
}

std::string tests_of(const std::string& row) {
  return row.substr(row.find(" | ") + 3);
}

std::string all_of(const fs::path& folder) {
  std::string text;
  for (const auto& file : fs::directory_iterator(folder)) {
    if (file.is_regular_file()) text += text_of(file.path());
  }
  return text;
}

std::vector<std::string> found(const std::string& text, const std::string& pattern) {
  std::vector<std::string> all;
  const std::regex expression(pattern);
  for (std::sregex_iterator match(text.begin(), text.end(), expression), end; match != end; ++match) all.push_back((*match)[1]);
  return all;
}

TEST(FaultsTable, has_every_fault_from_a_to_i) {
  std::string text;
  for (const std::string& row : rows()) text += row + "\n";
  static const std::vector<std::pair<char, int>> kinds = {{'A', 13}, {'B', 8}, {'C', 3}, {'D', 6}, {'E', 5},
                                                          {'F', 8},  {'G', 9}, {'H', 5}, {'I', 9}};
  for (const auto& [kind, count] : kinds) {
    for (int number = 1; number <= count; ++number) {
      const std::string name = kind + std::to_string(number);
      EXPECT_TRUE(std::regex_search(text, std::regex("\\| (?:[A-I][0-9]+, )*" + name + "\\b"))) << name << " has no row";
    }
  }
}

/// "suite/file" is tests/suite/file_test.cpp or a test of tests/CMakeLists.txt; `name` after it is a test or a case in that
/// folder.
TEST(FaultsTable, names_tests_that_exist) {
  const std::string entries = text_of(root / "tests" / "CMakeLists.txt") + text_of(root / "CMakeLists.txt");
  for (const std::string& row : rows()) {
    std::string names;
    const auto files = found(tests_of(row), R"((?:^|[ (])([a-z]+/[a-z_0-9]+)(?=[ ,(|)]))");
    EXPECT_FALSE(files.empty() && row.find("./dev") == std::string::npos) << "names no test: " << row;
    for (const std::string& file : files) {
      EXPECT_TRUE(fs::exists(root / "tests" / (file + "_test.cpp")) || entries.find(file) != std::string::npos) << file;
      const fs::path folder = root / "tests" / file.substr(0, file.find('/'));
      if (fs::exists(folder)) names += all_of(folder);
    }
    for (const std::string& name : found(tests_of(row), R"(`([a-z0-9_]+_[a-z0-9_]+)`)")) {
      EXPECT_TRUE(names.find(name) != std::string::npos) << name << " is in none of the files of its row";
    }
  }
}

}  // namespace core_faults_table_test
}  // namespace rubato::test
