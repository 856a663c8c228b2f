// House rules as a failing test.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "core/source_text.h"

namespace core_tidy_test {

namespace fs = std::filesystem;
using rubato::test::sources_under;
using rubato::test::text_of;

/// "model" for src/model/x.cpp and include/rubato/model/x.h; empty elsewhere.
std::string room_of(const std::string& path) {
  std::smatch match;
  return std::regex_search(path, match, std::regex("^(?:src|include/rubato)/([a-z]+)/")) ? match[1].str() : "";
}

/// The rooms from the ground up, and what each may include besides itself.
struct Room {
  std::string name;
  std::set<std::string> may_include;
};

const std::vector<Room>& rooms() {
  static const std::set<std::string> method = {"core", "tensor", "context", "model", "wire", "data", "replica"};
  static const std::vector<Room> all = {
      {"core", {}},
      {"tensor", {}},
      {"io", {"core"}},
      {"context", {"core"}},
      {"model", {"core", "tensor", "context"}},
      {"zoo", {"core", "tensor", "model"}},
      {"wire", {"core", "tensor", "context", "model"}},
      {"data", {"core", "tensor", "io", "context"}},
      {"replica", {"core", "tensor", "context", "model", "data"}},
      {"schedules", method},
      {"couplings", method},
      {"membership", {"core"}},
      {"collectives", {"core", "tensor", "context", "wire", "membership"}},
      {"runtimes", {"core", "context"}},
      {"recording", {"core", "io", "context"}},
      {"transport", {"core", "io", "context"}},
      {"cost", {"core", "tensor", "context", "model", "data", "replica", "runtimes"}},
      {"observe", {"core", "tensor", "io", "context", "model", "data", "replica"}},
      {"config", {"core", "io", "model", "zoo", "data", "schedules", "couplings", "runtimes"}},
      {"checkpoint", {"core", "tensor", "io", "model", "observe"}},
      {"job",
       {"core", "tensor", "io", "context", "model", "zoo", "data", "replica", "schedules", "couplings", "runtimes", "transport",
        "cost", "observe", "config", "checkpoint"}},
      {"monitor", {"core", "io"}},
      {"cluster",
       {"core", "tensor", "io", "context", "model", "wire", "couplings", "collectives", "runtimes", "transport", "observe",
        "config", "checkpoint", "job", "membership", "monitor"}},
      {"train",
       {"core", "tensor", "io", "context", "model", "data", "recording", "cost", "observe", "config", "checkpoint", "job",
        "cluster"}},
      {"bootstrap", {"core", "io"}},
      {"launch", {"core", "io", "transport", "bootstrap"}},
      {"compare", {"core", "io"}}};
  return all;
}

const Room* find_room(const std::string& name) {
  const auto found = std::find_if(rooms().begin(), rooms().end(), [&](const Room& room) { return room.name == name; });
  return found == rooms().end() ? nullptr : &*found;
}

/// One line `#include "path"` of a file.
struct Include {
  fs::path file;
  std::string path, room;  ///< room: first folder of the path, without "rubato/"
  bool is_public() const { return path.starts_with("rubato/"); }
};

std::vector<Include> includes_of(const std::vector<std::string>& folders) {
  const std::regex include("#include \"((?:rubato/)?([a-z]+)/[^\"]+)\"");
  std::vector<Include> all;
  for (const fs::path& file : sources_under(folders)) {
    const std::string text = text_of(file);
    for (std::sregex_iterator it(text.begin(), text.end(), include), end; it != end; ++it)
      all.push_back({file, (*it)[1], (*it)[2]});
  }
  return all;
}

TEST(Tidy, arrows_between_rooms_go_one_way) {
  std::set<std::string> below;
  for (const Room& room : rooms()) {
    for (const std::string& used : room.may_include) EXPECT_TRUE(below.contains(used)) << room.name << " may include " << used;
    EXPECT_TRUE(below.insert(room.name).second) << room.name << " is listed twice";
  }
}

/// The two headers that are installed: lists of includes.
bool is_list(const std::string& file) {
  return file == "include/rubato/rubato.h" || file == "include/rubato/extend.h";
}

TEST(Tidy, rooms_include_only_what_stands_below_them) {
  int seen = 0;
  for (const Include& include : includes_of({"include", "src"})) {
    if (is_list(include.file.string())) continue;
    const std::string name = room_of(include.file.string());
    const Room* room = find_room(name);
    ASSERT_NE(room, nullptr) << include.file << ": a new room needs its place in the order";
    EXPECT_TRUE(include.room == name || room->may_include.contains(include.room)) << include.file << " includes " << include.path;
    ++seen;
  }
  EXPECT_GT(seen, 500);
}

TEST(Tidy, what_is_installed_is_for_those_outside_the_rooms) {
  for (const fs::path& file : sources_under({"include", "src"})) {
    if (is_list(file.string())) continue;
    EXPECT_EQ(text_of(file).find("#include \"rubato/extend.h\""), std::string::npos) << file;
    EXPECT_EQ(text_of(file).find("#include \"rubato/rubato.h\""), std::string::npos) << file;
  }
  for (const fs::path& file : sources_under({"examples", "tests/consumer"})) {
    const std::string text = text_of(file);
    const std::regex include("#include \"rubato/[^\"]+\"");
    for (std::sregex_iterator it(text.begin(), text.end(), include), end; it != end; ++it) {
      EXPECT_TRUE(it->str() == "#include \"rubato/rubato.h\"" || it->str() == "#include \"rubato/extend.h\"")
          << file << ": " << it->str();
    }
  }
}

TEST(Tidy, private_headers_stay_in_their_room) {
  int seen = 0;
  for (const Include& include : includes_of({"include", "src", "apps", "benchmarks", "examples"})) {
    if (include.is_public() || find_room(include.room) == nullptr) continue;
    const std::string name = room_of(include.file.string());
    EXPECT_EQ(include.room, name) << include.file << " includes " << include.path << "; move it to include/rubato/"
                                  << include.room;
    EXPECT_FALSE(include.file.string().starts_with("include/"))
        << include.file << ": an installed header includes " << include.path;
    ++seen;
  }
  EXPECT_GT(seen, 50);
}

TEST(Tidy, rooms_stay_small) {
  std::map<std::string, std::ptrdiff_t> lines;
  for (const fs::path& file : sources_under({"include", "src"})) {
    const std::string text = text_of(file);
    lines[room_of(file.string())] += std::count(text.begin(), text.end(), '\n');
  }
  EXPECT_GT(lines.size(), 20U);
  for (const auto& [room, count] : lines) EXPECT_LE(count, 3000) << "lines in room " << room << ": split it";
}

TEST(Tidy, nothing_uses_a_global_generator_or_writes_shared_gradients) {
  const std::regex banned(R"(manual_seed|getDefaultCPUGenerator|torch::rand\(|torch::randn\(|std::rand|random_device)");
  for (const fs::path& file : sources_under({"include", "src", "apps"})) {
    std::smatch match;
    const std::string text = text_of(file);
    EXPECT_FALSE(std::regex_search(text, match, banned)) << file << ": " << match.str();
    EXPECT_FALSE(std::regex_search(text, std::regex(R"(loss\w*\.backward\()")))
        << file << ": backward() accumulates into shared .grad; use torch::autograd::grad";
  }
}

TEST(Tidy, schedules_and_models_never_look_at_a_clock) {
  for (const fs::path& file : sources_under(
           {"include/rubato/schedules", "src/schedules", "src/replica", "src/couplings", "src/model", "src/data", "src/zoo"})) {
    const std::string text = text_of(file);
    EXPECT_EQ(text.find("std::chrono"), std::string::npos) << file << ": time comes from Context::now";
    EXPECT_EQ(text.find("<thread>") != std::string::npos && room_of(file.string()) == "schedules", false)
        << file << ": threads belong to runtimes";
  }
}

TEST(Tidy, what_timing_decides_passes_the_ordering_point) {
  for (const fs::path& file : sources_under({"include/rubato/schedules", "src/schedules", "src/replica", "src/couplings"})) {
    EXPECT_FALSE(std::regex_search(text_of(file), std::regex("std::(atomic|mutex)")))
        << file << ": a recording would not know of it; use LastToLeave, OrderedMutex or a channel";
  }
}

TEST(Tidy, one_file_knows_versions_of_libraries) {
  const std::regex version(R"(\b(TORCH|FMT|MHD|SIMGRID|ZMQ|CPPZMQ|CLI11|TOML_LIB|NLOHMANN_JSON|GOOGLE_PROTOBUF)_VERSION)");
  for (const fs::path& file : sources_under({"include", "src", "apps", "tests", "benchmarks", "examples"})) {
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
  for (const fs::path& file : sources_under({"include", "src", "apps", "tests", "benchmarks", "examples"})) {
    const std::string text = text_of(file);
    EXPECT_TRUE(!std::regex_search(text, integer) || text.find("#include <cstdint>") != std::string::npos)
        << file << ": older standard libraries brought it along, newer ones do not";
  }
}

TEST(Tidy, files_stay_small_and_carry_no_unfinished_business) {
  const std::string to_do = std::string("TO") + "DO", fix_me = std::string("FIX") + "ME";
  for (const fs::path& file : sources_under({"include", "src", "apps", "tests", "benchmarks", "examples"})) {
    const std::string text = text_of(file);
    const bool of_tests = file.string().starts_with("tests");
    EXPECT_LE(std::count(text.begin(), text.end(), '\n'), of_tests ? 1000 : 700) << file;
    EXPECT_EQ(text.find(to_do), std::string::npos) << file;
    EXPECT_EQ(text.find(fix_me), std::string::npos) << file;
  }
}

TEST(Tidy, every_header_is_included_somewhere) {
  std::string all;
  const auto files = sources_under({"include", "src", "apps", "tests", "benchmarks", "examples"});
  for (const fs::path& file : files) all += text_of(file);
  for (const fs::path& file : files) {
    if (file.extension() != ".h") continue;
    const std::string name = file.filename();
    EXPECT_TRUE(all.find("/" + name + "\"") != std::string::npos || all.find("\"" + name + "\"") != std::string::npos)
        << file << " is dead";
  }
}

}  // namespace core_tidy_test
