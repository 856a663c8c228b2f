// Of ten seconds that a file with a torch header costs, nine are the header's: who needs none is compiled without.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <vector>

namespace core_light_test {

namespace fs = std::filesystem;
const fs::path root = RUBATO_SOURCE_DIR;

std::string text_of(const fs::path& file) {
  std::ostringstream text;
  text << std::ifstream(file).rdbuf();
  return text.str();
}

/// A header of ours that `name` means in `from`; nothing: another's.
std::optional<fs::path> header(const std::string& name, const fs::path& from) {
  for (const fs::path& folder : {root / "include", root / "src", root / "tests", from.parent_path()}) {
    if (fs::exists(folder / name)) return folder / name;
  }
  return std::nullopt;
}

/// Whether a torch header comes along, by whatever way.
bool brings_torch(const fs::path& file, std::set<fs::path>& seen) {
  static const std::regex include("#include [<\"]([^>\"]+)[>\"]"), of_torch("^(torch|ATen|c10|caffe2)/.*");
  if (!seen.insert(file).second) return false;
  const std::string text = text_of(file);
  for (std::sregex_iterator it(text.begin(), text.end(), include), end; it != end; ++it) {
    const std::string name = (*it)[1];
    if (std::regex_match(name, of_torch)) return true;
    const auto found = header(name, file);
    if (found && brings_torch(*found, seen)) return true;
  }
  return false;
}

/// The arguments of `rubato_library(FOLDER ...)`; empty where there is none.
std::string library_of(const std::string& folder) {
  static const std::string lists = text_of(root / "CMakeLists.txt");
  std::smatch match;
  return std::regex_search(lists, match, std::regex("rubato_library\\(" + folder + "\\s([^)]*)\\)")) ? match[1].str() : "";
}

bool names(const std::string& list, const std::string& file) {
  return std::regex_search(list, std::regex("(^|[\\s/])" + std::regex_replace(file, std::regex("\\."), "\\.") + "($|[\\s)])"));
}

TEST(Light, files_without_a_torch_header_are_compiled_without_libtorch) {
  int light = 0;
  for (const auto& entry : fs::recursive_directory_iterator(root / "src")) {
    std::set<fs::path> seen;
    if (entry.path().extension() != ".cpp" || brings_torch(entry.path(), seen)) continue;
    const std::string list = library_of(entry.path().parent_path().filename());
    ++light;
    EXPECT_TRUE(!names(list, "TORCH") || names(list, entry.path().filename()))
        << entry.path() << ": add it to LIGHT in CMakeLists.txt";
  }
  EXPECT_GT(light, 50);
  const std::string apps = text_of(root / "apps/rubato/CMakeLists.txt");
  for (const auto& entry : fs::directory_iterator(root / "apps/rubato")) {
    std::set<fs::path> seen;
    if (entry.path().extension() != ".cpp" || brings_torch(entry.path(), seen)) continue;
    EXPECT_TRUE(names(apps, entry.path().filename())) << entry.path() << ": add it to `light` in apps/rubato/CMakeLists.txt";
  }
}

TEST(Light, tests_without_a_torch_header_are_compiled_without_libtorch) {
  const std::string lists = text_of(root / "tests/CMakeLists.txt");
  std::smatch folders;
  ASSERT_TRUE(std::regex_search(lists, folders, std::regex("set\\(light_folders ([^)]*)\\)")));
  int light = 0;
  for (const auto& entry : fs::recursive_directory_iterator(root / "tests")) {
    const std::string folder = entry.path().parent_path().filename(), name = entry.path().filename();
    std::set<fs::path> seen;
    if (!name.ends_with("_test.cpp") || folder == "app" || brings_torch(entry.path(), seen)) continue;
    ++light;
    EXPECT_TRUE(names(folders[1].str(), folder) || names(lists, folder + "/" + name))
        << entry.path() << ": add it to `light` in tests/CMakeLists.txt";
  }
  EXPECT_GT(light, 20);
}

}  // namespace core_light_test
