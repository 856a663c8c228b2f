#pragma once

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

// The project's own files, for tests of house rules.

namespace rubato::test {

/// C++ files under `folders` of the project, relative to its root, in order.
inline std::vector<std::filesystem::path> sources_under(const std::vector<std::string>& folders) {
  const std::filesystem::path root = RUBATO_SOURCE_DIR;
  std::vector<std::filesystem::path> files;
  for (const std::string& folder : folders) {
    for (const auto& entry : std::filesystem::recursive_directory_iterator(root / folder)) {
      const std::string extension = entry.path().extension();
      if (extension == ".h" || extension == ".cpp") files.push_back(std::filesystem::relative(entry.path(), root));
    }
  }
  std::sort(files.begin(), files.end());
  return files;
}

inline std::string text_of(const std::filesystem::path& file) {
  std::ostringstream text;
  text << std::ifstream(std::filesystem::path(RUBATO_SOURCE_DIR) / file).rdbuf();
  return text.str();
}

}  // namespace rubato::test
