#include "rubato/io/record_file.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <cstdint>

#include "support/temporary_directory.h"

namespace rubato {
namespace io_record_file_test {

std::vector<std::string> records_of(const std::filesystem::path& file) {
  RecordReader reader(file);
  std::vector<std::string> all;
  while (auto record = reader.next()) all.push_back(*record);
  return all;
}

/// As a full disk does, and has room again later.
class SizeLimit {
 public:
  explicit SizeLimit(std::uint64_t bytes) {
    std::signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &before_);
    rlimit limit = before_;
    limit.rlim_cur = bytes;
    setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~SizeLimit() { setrlimit(RLIMIT_FSIZE, &before_); }

 private:
  rlimit before_{};
};

TEST(RecordFile, ends_with_the_last_whole_record_when_the_disk_is_full) {
  const test::TemporaryDirectory folder;
  const auto file = folder.path() / "records";
  for (const auto how : {RecordWriter::Open::truncate, RecordWriter::Open::append}) {
    std::filesystem::remove(file);
    {
      RecordWriter writer(file, how);
      EXPECT_TRUE(writer.write("first"));
      {
        const SizeLimit limit(40);
        EXPECT_FALSE(writer.write(std::string(100, 'x')));
      }
      EXPECT_FALSE(writer.write("there is room again")) << "what is missing before it would not be noticed";
    }
    EXPECT_EQ(records_of(file), std::vector<std::string>{"first"});
  }
}

TEST(RecordFile, goes_on_behind_what_is_there) {
  const test::TemporaryDirectory folder;
  const auto file = folder.path() / "records";
  RecordWriter(file, RecordWriter::Open::truncate).write("first");
  {
    RecordWriter writer(file, RecordWriter::Open::append);
    EXPECT_TRUE(writer.write("second"));
    const SizeLimit limit(60);
    EXPECT_FALSE(writer.write(std::string(100, 'x')));
  }
  EXPECT_EQ(records_of(file), (std::vector<std::string>{"first", "second"}));
}

}  // namespace io_record_file_test
}  // namespace rubato
