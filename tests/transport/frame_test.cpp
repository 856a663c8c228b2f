#include "rubato/transport/frame.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <limits>

#include "frame.pb.h"
#include "transport/random_frames.h"

namespace rubato {
namespace transport_frame_test {

using test::blob_of, test::bytes_of, test::parts_of;
using transport::Head;

constexpr std::int64_t most = std::numeric_limits<std::int64_t>::max();

Frame parse(const Frame& frame, const FrameLimits& limits = {}) {
  return parse_frame(frame_head(frame), parts_of(frame), limits);
}

void expect_equal(const Frame& a, const Frame& b) {
  EXPECT_EQ(a.kind, b.kind);
  EXPECT_EQ(a.about, b.about);
  EXPECT_EQ(a.serial, b.serial);
  EXPECT_EQ(a.content.numbers, b.content.numbers);
  EXPECT_EQ(a.content.texts, b.content.texts);
  ASSERT_EQ(a.content.tensors.size(), b.content.tensors.size());
  for (std::size_t i = 0; i < a.content.tensors.size(); ++i) {
    EXPECT_EQ(a.content.tensors[i].type, b.content.tensors[i].type);
    EXPECT_EQ(a.content.tensors[i].sizes, b.content.tensors[i].sizes);
    EXPECT_EQ(bytes_of(a.content.tensors[i].content), bytes_of(b.content.tensors[i].content));
  }
}

Frame with_tensor(int type, std::vector<std::int64_t> sizes, std::size_t bytes) {
  Frame frame;
  frame.content.tensors.push_back({type, std::move(sizes), blob_of(std::string(bytes, 'x'))});
  return frame;
}

/// Of a head that says what `frame_head` would not.
std::string refusal_of(const std::string& head, const std::vector<Blob>& parts = {}, const FrameLimits& limits = {}) {
  try {
    parse_frame(head, parts, limits);
  } catch (const FrameError& error) {
    return error.what();
  }
  return "";
}

std::string refusal_of(const Frame& frame, const FrameLimits& limits = {}) {
  return refusal_of(frame_head(frame), parts_of(frame), limits);
}

Head valid_head() {
  Head head;
  head.set_version(frame_version);
  head.set_kind(static_cast<std::uint32_t>(FrameKind::message));
  return head;
}

TEST(Frame, comes_out_as_it_went_in) {
  Frame frame{FrameKind::message, std::string("a channel\0\xff", 11), -7, {}};
  frame.content.numbers = {0, -1, most, std::numeric_limits<std::int64_t>::min()};
  frame.content.texts = {"", "text", std::string("\0\x80", 2)};
  frame.content.tensors = {{6, {2, 3}, blob_of(std::string(24, 'a'))}, {7, {}, blob_of("12345678")}};
  expect_equal(parse(frame), frame);
}

TEST(Frame, every_kind_travels) {
  for (int kind = 1; kind <= static_cast<int>(FrameKind::report); ++kind) {
    Frame frame;
    frame.kind = static_cast<FrameKind>(kind);
    EXPECT_EQ(parse(frame).kind, frame.kind);
  }
}

TEST(Frame, an_undefined_tensor_has_no_part_and_an_empty_one_an_empty_part) {
  Frame frame;
  frame.content.tensors = {{-1, {}, {}}, {4, {3, 0, 5}, {}}, {-1, {}, {}}, {0, {2}, blob_of("ab")}};
  ASSERT_EQ(parts_of(frame).size(), 2u);
  expect_equal(parse(frame), frame);
}

TEST(Frame, tensors_share_the_parts_owners) {
  const Frame frame = with_tensor(1, {5}, 5);
  const Blob& sent = frame.content.tensors[0].content;
  const Frame parsed = parse(frame);
  const Blob& got = parsed.content.tensors[0].content;
  EXPECT_EQ(got.data, sent.data);
  EXPECT_EQ(got.owner, sent.owner);
}

TEST(Frame, every_type_that_travels_has_its_size) {
  const std::vector<std::size_t> bytes{1, 1, 2, 4, 8, 2, 4, 8, 0, 0, 0, 1, 0, 0, 0, 2, 0};
  for (int type = 0; type < static_cast<int>(bytes.size()); ++type) EXPECT_EQ(element_bytes(type), bytes[type]) << type;
  EXPECT_EQ(element_bytes(-1), 0u);
  EXPECT_EQ(element_bytes(std::numeric_limits<int>::min()), 0u);
}

TEST(Frame, random_frames_come_out_as_they_went_in) {
  for (std::uint64_t seed = 0; seed < 2000; ++seed) {
    SCOPED_TRACE(seed);
    test::Dice dice(seed);
    const Frame frame = test::random_frame(dice);
    expect_equal(parse(frame), frame);
  }
}

TEST(FrameRefusal, of_another_version) {
  Head head = valid_head();
  head.set_version(frame_version + 1);
  EXPECT_THAT(refusal_of(head.SerializeAsString()), testing::HasSubstr("version 2"));
  EXPECT_THAT(refusal_of(""), testing::HasSubstr("version 0"));
}

TEST(FrameRefusal, of_unknown_kinds) {
  for (const std::uint32_t kind : {0u, 11u, 256u + 1u, ~0u}) {
    Head head = valid_head();
    head.set_kind(kind);
    EXPECT_THAT(refusal_of(head.SerializeAsString()), testing::HasSubstr("unknown kind")) << kind;
  }
}

TEST(FrameRefusal, of_what_protobuf_does_not_parse) {
  const std::string head = valid_head().SerializeAsString();
  for (const char* text : {"\x08", "\x07", "\x1a\x05x", "\x0b", "\x0c", "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"}) {
    EXPECT_THAT(refusal_of(head + text), testing::HasSubstr("not one of a frame"));
  }
}

TEST(FrameRefusal, of_heads_that_frame_head_writes_otherwise) {
  const std::string head = valid_head().SerializeAsString();
  EXPECT_EQ(refusal_of(head), "");
  EXPECT_NE(refusal_of(head + "\x78\x01"), "");                      // a field that the schema lacks
  EXPECT_NE(refusal_of(head + "\x3a\x04\x08\x01\x78\x01"), "");      // the same in a tensor
  EXPECT_NE(refusal_of(head + std::string("\x10\x86\x00", 3)), "");  // a number longer than it must be
  EXPECT_NE(refusal_of(head + head), "");
}

TEST(FrameRefusal, of_a_head_above_the_limit) {
  Frame frame;
  frame.about = std::string(100, 'x');
  const std::size_t bytes = frame_head(frame).size();
  EXPECT_EQ(refusal_of(frame, {.head_bytes = bytes}), "");
  EXPECT_THAT(refusal_of(frame, {.head_bytes = bytes - 1}), testing::HasSubstr("at most"));
}

TEST(FrameRefusal, of_a_tensor_above_the_limit) {
  const Frame frame = with_tensor(6, {5, 5}, 100);
  EXPECT_EQ(refusal_of(frame, {.tensor_bytes = 100}), "");
  EXPECT_THAT(refusal_of(frame, {.tensor_bytes = 99}), testing::HasSubstr("at most 99"));
}

TEST(FrameRefusal, of_more_tensors_than_the_limit) {
  Frame frame;
  frame.content.tensors.assign(3, {-1, {}, {}});
  EXPECT_EQ(refusal_of(frame, {.tensors = 3}), "");
  EXPECT_THAT(refusal_of(frame, {.tensors = 2}), testing::HasSubstr("more than 2 tensors"));
}

TEST(FrameRefusal, of_tensors_above_the_limit_comes_before_that_of_what_follows_them) {
  std::string head = valid_head().SerializeAsString();
  for (int i = 0; i < 100000; ++i) head += std::string("\x3a\x00", 2);
  EXPECT_THAT(refusal_of(head + "\x07"), testing::HasSubstr("more than 65536 tensors"));
}

TEST(FrameRefusal, of_negative_sizes) {
  EXPECT_THAT(refusal_of(with_tensor(6, {-1}, 0)), testing::HasSubstr("negative"));
  EXPECT_THAT(refusal_of(with_tensor(6, {-2, -2}, 16)), testing::HasSubstr("negative"));
  EXPECT_THAT(refusal_of(with_tensor(6, {0, -1}, 0)), testing::HasSubstr("negative"));
}

TEST(FrameRefusal, of_sizes_whose_product_overflows) {
  constexpr std::int64_t half = std::int64_t{1} << 32;
  EXPECT_THAT(refusal_of(with_tensor(0, {half, half}, 0)), testing::HasSubstr("overflows"));
  EXPECT_THAT(refusal_of(with_tensor(7, {most}, 0)), testing::HasSubstr("overflows"));
  EXPECT_THAT(refusal_of(with_tensor(0, {0, half, half}, 0)), testing::HasSubstr("overflows"));
  EXPECT_THAT(refusal_of(with_tensor(0, {most}, 0)), testing::HasSubstr("at most"));
}

TEST(FrameRefusal, of_more_than_sixteen_dimensions) {
  EXPECT_EQ(refusal_of(with_tensor(0, std::vector<std::int64_t>(16, 1), 1)), "");
  EXPECT_THAT(refusal_of(with_tensor(0, std::vector<std::int64_t>(17, 1), 1)), testing::HasSubstr("17 dimensions"));
}

TEST(FrameRefusal, of_types_that_cannot_travel) {
  for (const int type : {-2, 8, 9, 10, 12, 14, 16, 1000, std::numeric_limits<int>::min()}) {
    EXPECT_THAT(refusal_of(with_tensor(type, {1}, 1)), testing::HasSubstr("cannot travel")) << type;
  }
}

TEST(FrameRefusal, of_an_undefined_tensor_with_sizes) {
  EXPECT_THAT(refusal_of(with_tensor(-1, {1}, 0)), testing::HasSubstr("undefined"));
}

TEST(FrameRefusal, of_parts_of_another_length) {
  EXPECT_THAT(refusal_of(with_tensor(6, {2}, 7)), testing::HasSubstr("a part of 7 bytes for a tensor of 8"));
  EXPECT_THAT(refusal_of(with_tensor(6, {2}, 9)), testing::HasSubstr("a part of 9 bytes for a tensor of 8"));
  EXPECT_THAT(refusal_of(with_tensor(6, {2, 0}, 4)), testing::HasSubstr("a part of 4 bytes for a tensor of 0"));
}

TEST(FrameRefusal, of_parts_too_few_or_too_many) {
  const Frame frame = with_tensor(0, {1}, 1);
  EXPECT_THAT(refusal_of(frame_head(frame)), testing::HasSubstr("missing"));
  EXPECT_THAT(refusal_of(frame_head(frame), {blob_of("x"), {}}), testing::HasSubstr("too many"));
  EXPECT_THAT(refusal_of(frame_head(Frame()), {{}}), testing::HasSubstr("too many"));
}

/// Anything that escapes but FrameError fails the test.
bool parses(const std::string& head, const std::vector<Blob>& parts) {
  return refusal_of(head, parts, {.tensor_bytes = 1 << 12}).empty();
}

TEST(FrameRefusal, is_the_worst_that_changed_frames_cause) {
  int parsed = 0, refused = 0;
  for (std::uint64_t seed = 0; seed < 30000; ++seed) {
    SCOPED_TRACE(seed);
    test::Dice dice(seed);
    const Frame frame = test::random_frame(dice);
    std::string head = frame_head(frame);
    for (std::size_t left = 1 + dice.below(3); left > 0; --left) test::mutate(dice, head);
    ++(parses(head, parts_of(frame)) ? parsed : refused);
  }
  EXPECT_GT(parsed, 1000);
  EXPECT_GT(refused, 1000);
}

TEST(FrameRefusal, is_the_worst_that_random_bytes_cause) {
  for (std::uint64_t seed = 0; seed < 20000; ++seed) {
    SCOPED_TRACE(seed);
    test::Dice dice(seed);
    std::string head = dice.bytes(dice.below(64));
    if (dice.below(2)) head = valid_head().SerializeAsString() + head;
    EXPECT_NO_THROW(parses(head, std::vector<Blob>(dice.below(3))));
  }
}

}  // namespace transport_frame_test
}  // namespace rubato
