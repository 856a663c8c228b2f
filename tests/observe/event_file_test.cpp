#include "rubato/observe/event_file.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <string>

#include "rubato/io/record_file.h"
#include "support/temporary_directory.h"

namespace rubato {
namespace train_event_file_test {

/// Field 2 of the value, a float: absent where the writer took 0 for "not there".
std::string field_of(float value) {
  std::string bytes(5, '\x15');
  std::memcpy(bytes.data() + 1, &value, sizeof value);
  return bytes;
}

TEST(EventFile, every_value_is_there_zero_as_well) {
  const test::TemporaryDirectory folder;
  const std::pair<const char*, float> values[] = {{"a", 0.0F}, {"b", -0.0F}, {"c", 1.5F}, {"d", 0.0F}};
  {
    EventFile file(folder.path());
    std::int64_t step = 0;
    for (const auto& [tag, value] : values) file.scalar(tag, step++, value);
  }
  const auto found = std::filesystem::directory_iterator(folder.path())->path();
  RecordReader reader(found);
  ASSERT_NE(reader.next().value_or("").find("brain.Event:2"), std::string::npos);
  for (const auto& [tag, value] : values) {
    const std::string wanted = std::string("\x0a\x01") + tag + field_of(value);
    EXPECT_NE(reader.next().value_or("").find(wanted), std::string::npos) << tag;
  }
  EXPECT_FALSE(reader.next());
}

}  // namespace train_event_file_test
}  // namespace rubato
