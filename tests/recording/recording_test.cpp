#include "rubato/recording/recording.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "rubato/core/error.h"
#include "rubato/recording/recorder.h"
#include "support/temporary_directory.h"

namespace rubato {
namespace recording_recording_test {

using ::testing::AllOf;
using ::testing::HasSubstr;

class RecordingTest : public ::testing::Test {
 protected:
  void SetUp() override {
    Recorder recorder(file);
    for (int segment = 0; segment < 2; ++segment) {
      recorder.begin_segment(segment * 5);
      for (int i = 0; i < 3; ++i) {
        Event event{.kind = EventKind::publish, .block = i, .batch = i, .of = "r0", .checksum = 7};
        recorder.act("worker-" + std::to_string(i % 2), event, [&] { event.version = 10 + i; });
      }
      recorder.end_segment(segment * 5 + 5);
    }
    recorder.finish("abc");
    EXPECT_FALSE(recorder.failed());
  }
  std::string content() const {
    std::stringstream text;
    text << std::ifstream(file, std::ios::binary).rdbuf();
    return text.str();
  }
  /// The sentence that refuses a recording with these bytes; empty if none does.
  std::string refusal(const std::string& bytes) {
    std::ofstream(file, std::ios::binary | std::ios::trunc) << bytes;
    try {
      load_recording(file);
    } catch (const DataError& error) {
      return error.what();
    }
    return "";
  }

  test::TemporaryDirectory folder;
  std::filesystem::path file = folder.path() / "recording.rec";
};

TEST_F(RecordingTest, holds_what_was_done_in_order) {
  const Recording recording = load_recording(file);
  ASSERT_EQ(recording.segments.size(), 2u);
  EXPECT_EQ(recording.segments[1].begin, 5);
  EXPECT_EQ(recording.segments[1].end, 10);
  EXPECT_EQ(recording.events(), 6);
  EXPECT_EQ(recording.weights_digest, "abc");
  EXPECT_EQ(recording.roles, (std::vector<std::string>{"worker-0", "worker-1"}));
  const RecordedEvent& last = recording.segments[1].events[2];
  EXPECT_EQ(recording.objects.at(last.object), "block 2 of r0");
  EXPECT_EQ(recording.roles.at(last.role), "worker-0");
  EXPECT_EQ(last.kind, EventKind::publish);
  EXPECT_EQ(last.version, 12);
  EXPECT_EQ(last.batch, 2);
  EXPECT_EQ(last.checksum, 7u);
}

TEST_F(RecordingTest, cut_at_any_byte_it_is_refused_with_the_place) {
  const std::string whole = content();
  for (std::size_t size = 0; size < whole.size(); ++size) {
    const std::string sentence = refusal(whole.substr(0, size));
    ASSERT_THAT(sentence, AllOf(HasSubstr("recording.rec"), HasSubstr("cut"))) << size;
    ASSERT_TRUE(sentence.find("at byte ") != std::string::npos || sentence.find("in part ") != std::string::npos) << sentence;
  }
}

TEST_F(RecordingTest, edited_in_any_byte_it_is_refused_with_the_place) {
  const std::string whole = content();
  for (std::size_t place = 0; place < whole.size(); ++place) {
    std::string edited = whole;
    edited[place] = static_cast<char>(edited[place] ^ 0x10);
    ASSERT_THAT(refusal(edited), HasSubstr("at byte ")) << place;
  }
}

TEST_F(RecordingTest, with_something_appended_it_is_refused) {
  const std::string whole = content();
  EXPECT_THAT(refusal(whole + whole), HasSubstr("goes on after its end"));
}

}  // namespace recording_recording_test
}  // namespace rubato
