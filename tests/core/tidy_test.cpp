// House rules as a failing test.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <vector>

namespace core_tidy_test {

namespace fs = std::filesystem;
const fs::path root = RUBATO_SOURCE_DIR;

std::vector<fs::path> files_under(const std::vector<std::string>& folders) {
  std::vector<fs::path> files;
  for (const std::string& folder : folders) {
    for (const auto& entry : fs::recursive_directory_iterator(root / folder)) {
      const std::string extension = entry.path().extension();
      if (extension == ".h" || extension == ".cpp") files.push_back(fs::relative(entry.path(), root));
    }
  }
  return files;
}

std::string text_of(const fs::path& file) {
  std::ostringstream text;
  text << std::ifstream(root / file).rdbuf();
  return text.str();
}

/// "model" for src/model/x.cpp and include/rubato/model/x.h; empty elsewhere.
std::string folder_of(const std::string& path) {
  std::smatch match;
  return std::regex_search(path, match, std::regex("(?:^src/|rubato/)([a-z]+)/")) ? match[1].str() : "";
}

/// What each folder may include besides itself: core <- model <- zoo; core <- data; core <- context; these <- replica <-
/// schedules, couplings; context <- runtimes, recording; core <- compare; all of them <- train.
const std::map<std::string, std::set<std::string>>& allowed() {
  static const std::map<std::string, std::set<std::string>> rules = {
      {"core", {}},
      {"tensor", {}},
      {"model", {"core", "tensor"}},
      {"zoo", {"core", "tensor", "model"}},
      {"data", {"core", "tensor"}},
      {"context", {"core"}},
      {"replica", {"core", "tensor", "model", "data", "context"}},
      {"schedules", {"core", "tensor", "model", "data", "context", "replica"}},
      {"couplings", {"core", "tensor", "model", "data", "context", "replica"}},
      {"runtimes", {"core", "context"}},
      {"recording", {"core", "context"}},
      {"compare", {"core"}},
      {"transport", {"core", "context"}},
      {"launch", {"core", "transport"}},
      {"collectives", {"core", "tensor", "model", "data", "context", "replica"}},
      {"train",
       {"core", "tensor", "model", "zoo", "data", "context", "replica", "schedules", "couplings", "runtimes", "recording",
        "transport", "collectives"}}};
  return rules;
}

TEST(Tidy, folders_include_only_what_stands_below_them) {
  const std::regex include("#include \"((?:rubato/)?([a-z]+)/[^\"]+)\"");
  int seen = 0;
  for (const fs::path& file : files_under({"include", "src"})) {
    const std::string folder = folder_of(file.string()), text = text_of(file);
    ASSERT_TRUE(allowed().contains(folder)) << file << ": a new folder needs its place in the order";
    for (std::sregex_iterator it(text.begin(), text.end(), include), end; it != end; ++it, ++seen) {
      const std::string target = (*it)[2];
      EXPECT_TRUE(target == folder || allowed().at(folder).contains(target)) << file << " includes " << (*it)[1];
    }
  }
  EXPECT_GT(seen, 50);
}

TEST(Tidy, nothing_uses_a_global_generator_or_writes_shared_gradients) {
  const std::regex banned(R"(manual_seed|getDefaultCPUGenerator|torch::rand\(|torch::randn\(|std::rand|random_device)");
  for (const fs::path& file : files_under({"include", "src", "apps"})) {
    std::smatch match;
    const std::string text = text_of(file);
    EXPECT_FALSE(std::regex_search(text, match, banned)) << file << ": " << match.str();
    EXPECT_FALSE(std::regex_search(text, std::regex(R"(loss\w*\.backward\()")))
        << file << ": backward() accumulates into shared .grad; use torch::autograd::grad";
  }
}

TEST(Tidy, schedules_and_models_never_look_at_a_clock) {
  for (const fs::path& file : files_under(
           {"include/rubato/schedules", "src/schedules", "src/replica", "src/couplings", "src/model", "src/data", "src/zoo"})) {
    const std::string text = text_of(file);
    EXPECT_EQ(text.find("std::chrono"), std::string::npos) << file << ": time comes from Context::now";
    EXPECT_EQ(text.find("<thread>") != std::string::npos && folder_of(file.string()) == "schedules", false)
        << file << ": threads belong to runtimes";
  }
}

TEST(Tidy, what_timing_decides_passes_the_ordering_point) {
  for (const fs::path& file : files_under({"include/rubato/schedules", "src/schedules", "src/replica", "src/couplings"})) {
    EXPECT_FALSE(std::regex_search(text_of(file), std::regex("std::(atomic|mutex)")))
        << file << ": a recording would not know of it; use LastToLeave, OrderedMutex or a channel";
  }
}

TEST(Tidy, one_file_knows_versions_of_libraries) {
  const std::regex version(R"(\b(TORCH|FMT|MHD|SIMGRID|ZMQ|CPPZMQ|CLI11|TOML_LIB|NLOHMANN_JSON|GOOGLE_PROTOBUF)_VERSION)");
  for (const fs::path& file : files_under({"include", "src", "apps", "tests", "benchmarks", "examples"})) {
    if (file.filename() == "torch_versions.h" || file.filename() == "tidy_test.cpp") continue;
    std::smatch match;
    const std::string text = text_of(file);
    for (std::istringstream lines(text); lines;) {
      std::string line;
      std::getline(lines, line);
      EXPECT_FALSE(line.starts_with("#") && std::regex_search(line, match, version)) << file << ": " << line;
    }
  }
}

TEST(Tidy, fixed_width_integers_are_included_where_they_are_used) {
  const std::regex integer(R"(\bstd::u?int(8|16|32|64)_t\b)");
  for (const fs::path& file : files_under({"include", "src", "apps", "tests", "benchmarks", "examples"})) {
    const std::string text = text_of(file);
    EXPECT_TRUE(!std::regex_search(text, integer) || text.find("#include <cstdint>") != std::string::npos)
        << file << ": older standard libraries brought it along, newer ones do not";
  }
}

TEST(Tidy, files_stay_small_and_carry_no_unfinished_business) {
  const std::string to_do = std::string("TO") + "DO", fix_me = std::string("FIX") + "ME";
  for (const fs::path& file : files_under({"include", "src", "apps", "tests", "benchmarks", "examples"})) {
    const std::string text = text_of(file);
    EXPECT_LE(std::count(text.begin(), text.end(), '\n'), 400) << file;
    EXPECT_EQ(text.find(to_do), std::string::npos) << file;
    EXPECT_EQ(text.find(fix_me), std::string::npos) << file;
  }
}

TEST(Tidy, every_header_is_included_somewhere) {
  std::string all;
  const auto files = files_under({"include", "src", "apps", "tests", "benchmarks", "examples"});
  for (const fs::path& file : files) all += text_of(file);
  for (const fs::path& file : files) {
    if (file.extension() != ".h") continue;
    const std::string name = file.filename();
    EXPECT_TRUE(all.find("/" + name + "\"") != std::string::npos || all.find("\"" + name + "\"") != std::string::npos)
        << file << " is dead";
  }
}

}  // namespace core_tidy_test
