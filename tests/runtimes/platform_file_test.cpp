// Each file in a process of its own: SimGrid reads none once another platform has been simulated.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "rubato/core/error.h"
#include "support/forked.h"
#include "support/simulated.h"
#include "support/temporary_directory.h"

namespace rubato {
namespace runtimes_platform_file_test {

using test::in_fresh_process;
using ::testing::AllOf;
using ::testing::HasSubstr;

std::string text_of(double value) {
  return fmt::format("{}", value);
}

TEST(PlatformFile, of_simgrid_is_read_and_bad_ones_named_with_their_line) {
  const test::TemporaryDirectory folder;
  const std::string file = folder.path() / "two.xml";
  const std::string begin =
      "<?xml version='1.0'?>\n<!DOCTYPE platform SYSTEM \"https://simgrid.org/simgrid.dtd\">\n<platform version=\"4.1\">\n"
      "<zone id=\"z\" routing=\"Full\">\n";
  const std::string end =
      "<link id=\"l\" bandwidth=\"125MBps\" latency=\"1ms\"/>\n"
      "<route src=\"a\" dst=\"b\"><link_ctn id=\"l\"/></route>\n</zone>\n</platform>\n";
  std::ofstream(file) << begin << "<host id=\"a\" speed=\"1Gf\"/>\n<host id=\"b\" speed=\"500Mf\"/>\n" << end;
  EXPECT_NEAR(std::stod(in_fresh_process([&] { return text_of(test::transfer(parse_platform({.platform = file}), 1'250'000)); })),
              0.011, 1e-4);
  EXPECT_NEAR(std::stod(in_fresh_process([&] { return text_of(test::forwards(parse_platform({.platform = file}), 1)); })), 1,
              1e-6);
  std::ofstream(file) << begin << "<host id=\"a\" speed=\"1Gf\"/>\n<host id=\"b\" speed=\"quick\"/>\n" << end;
  const std::string sentence = in_fresh_process([&] {
    try {
      return text_of(test::transfer(parse_platform({.platform = file}), 1));
    } catch (const DataError& error) {
      return std::string(error.what());
    }
  });
  EXPECT_THAT(sentence, AllOf(HasSubstr("two.xml:6"), HasSubstr("quick")));
}

}  // namespace runtimes_platform_file_test
}  // namespace rubato
