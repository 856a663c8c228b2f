#include "rubato/model/state_dict.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cstdint>
#include <sstream>

#include "model/pickle.h"
#include "rubato/core/error.h"
#include "rubato/core/random.h"

namespace rubato {
namespace model_state_dict_test {

using ::testing::HasSubstr;

NamedTensors read(const std::string& bytes) {
  std::istringstream file(bytes);
  return read_state_dict(file, "some.pt");
}

std::string refusal(const std::string& bytes) {
  try {
    read(bytes);
  } catch (const DataError& error) {
    return error.what();
  }
  return "read";
}

const NamedTensors& sample() {
  static const NamedTensors tensors = {{"b.weight", torch::arange(12, torch::kFloat).view({3, 4})},
                                       {"a.steps", torch::tensor(std::int64_t{-70'000})},
                                       {"c.empty", torch::empty({0, 2}, torch::kDouble)},
                                       {"d.flags", torch::tensor({true, false})},
                                       {"e.half", torch::ones({300}, torch::kHalf)}};
  return tensors;
}

TEST(StateDict, gives_back_names_types_shapes_and_values_in_their_order) {
  const NamedTensors tensors = read(state_dict_bytes(sample()));
  ASSERT_EQ(tensors.size(), sample().size());
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    EXPECT_EQ(tensors[i].first, sample()[i].first);
    EXPECT_EQ(tensors[i].second.dtype(), sample()[i].second.dtype());
    EXPECT_TRUE(tensors[i].second.equal(sample()[i].second)) << tensors[i].first;
  }
  EXPECT_TRUE(read(state_dict_bytes({})).empty());
}

TEST(StateDict, a_type_that_old_versions_have_no_class_for_is_refused) {
  EXPECT_THROW(state_dict_bytes({{"z", torch::zeros({2}, torch::kComplexFloat)}}), UsageError);
}

// Whatever happens to a file: it is read, or refused with a sentence.
TEST(StateDict, files_that_are_cut_off_or_damaged_are_refused) {
  const std::string whole = state_dict_bytes(sample());
  for (std::size_t size = 0; size < whole.size(); size += 7) EXPECT_NE(refusal(whole.substr(0, size)), "read") << size;
  RandomStream random(1, RandomUse::test);
  for (int i = 0; i < 300; ++i) {
    std::string damaged = whole;
    for (int byte = 0; byte < 4; ++byte) damaged[random.below(damaged.size())] = static_cast<char>(random.below(256));
    refusal(damaged);  // throws nothing else
  }
}

/// The old form, whose pickle needs no archive around it.
std::string stream_of(const std::string& object, const std::string& storages = "") {
  const std::string magic("\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.", 15), version("\x80\x02M\xe9\x03.", 6),
      sizes("\x80\x02}.", 4);
  const std::string keys = "\x80\x02]X\x01" + std::string(3, '\0') + "0a.";
  return magic + version + sizes + object + keys + (storages.empty() ? std::string("\x02") + std::string(7 + 8, '\0') : storages);
}

/// {"w": tensor of two floats seen with these sizes, strides and offset}
std::string view(const std::vector<std::int64_t>& sizes, const std::vector<std::int64_t>& strides, std::int64_t offset,
                 const char* kind = "FloatStorage") {
  pickle::Writer out;
  const auto tuple = [&](const std::vector<std::int64_t>& numbers) {
    out.begin();
    for (const std::int64_t number : numbers) out.number(number);
    out.end_tuple();
  };
  out.empty_dictionary();
  out.begin();
  out.text("w");
  out.global("torch._utils", "_rebuild_tensor_v2");
  out.begin();
  out.begin();
  out.text("storage");
  out.global("torch", kind);
  out.text("0");
  out.text("cpu");
  out.number(2);
  out.end_tuple();
  out.outside();
  out.number(offset);
  tuple(sizes);
  tuple(strides);
  out.end_tuple();
  out.call();
  out.end_items();
  return stream_of(out.finish());
}

TEST(StateDict, a_view_that_leaves_its_storage_is_refused) {
  EXPECT_EQ(read(view({2, 3}, {1, 0}, 0)).front().second.sizes(), (std::vector<std::int64_t>{2, 3}));
  EXPECT_EQ(read(view({0}, {1}, 2)).front().second.numel(), 0);
  constexpr std::int64_t huge = INT64_MAX;
  for (const std::string& bytes : {view({3}, {1}, 0), view({2}, {1}, 1), view({2}, {2}, 0), view({}, {}, 2), view({0}, {1}, 3),
                                   view({huge}, {huge}, 1), view({2, 2}, {huge, huge}, huge), view({2}, {1}, huge)}) {
    EXPECT_THAT(refusal(bytes), HasSubstr("more elements than are there"));
  }
  for (const std::string& bytes : {view({2}, {-1}, 1), view({-2}, {1}, 0), view({2}, {1}, -1), view({2}, {}, 0)}) {
    EXPECT_THAT(refusal(bytes), HasSubstr("'w'"));
  }
  EXPECT_THAT(refusal(view({2}, {1}, 0, "QInt8Storage")), HasSubstr("no known type"));
}

TEST(Pickle, programs_that_make_no_sense_are_refused) {
  const std::string deep = std::string("\x80\x02N") + std::string(1'000'000, '\x85');
  EXPECT_NO_THROW(pickle::Document(deep + "."));  // neither read nor forgotten by recursion
  const std::string circle(
      "\x80\x02]q\x00h\x00"
      "a.",
      9);
  const pickle::Document itself(circle);
  EXPECT_EQ(itself.root().as<pickle::Sequence>()->items.front(), &itself.root());
  for (const std::string& bytes : std::vector<std::string>{"",
                                                           "\x80",
                                                           "N",
                                                           ".",
                                                           "t.",
                                                           "u.",
                                                           "a.",
                                                           "0.",
                                                           "1.",
                                                           "R.",
                                                           "NR.",
                                                           "NNR.",
                                                           "b.",
                                                           "N(b.",
                                                           "}Ns.",
                                                           "}(Nu.",
                                                           "]NNs.",
                                                           "}Na.",
                                                           "Q.",
                                                           "h\x01.",
                                                           "cos\n",
                                                           "cos\nsystem",
                                                           "NN\x93.",
                                                           "(N\x86.",
                                                           "X\xff\xff\xff\x7f.",
                                                           "\x8d\xff\xff\xff\xff\xff\xff\xff\xff.",
                                                           "I1x\n.",
                                                           "I\n.",
                                                           "L99999999999999999999L\n.",
                                                           "ccollections\nOrderedDict\nN\x85R.",
                                                           "ccollections\nOrderedDict\n]Na\x85R.",
                                                           "2."}) {
    EXPECT_THROW(pickle::Document{bytes}, pickle::Malformed) << bytes;
  }
}

TEST(Pickle, numbers_come_back) {
  for (const std::int64_t number : {std::int64_t{0}, std::int64_t{255}, std::int64_t{256}, std::int64_t{65536}, std::int64_t{-1},
                                    std::int64_t{1} << 40, INT64_MIN, INT64_MAX}) {
    pickle::Writer out;
    out.number(number);
    const std::string bytes = out.finish();
    EXPECT_EQ(*pickle::Document(bytes).root().as<std::int64_t>(), number);
  }
  EXPECT_EQ(*pickle::Document("I-12\n.").root().as<std::int64_t>(), -12);
  EXPECT_EQ(*pickle::Document("L12L\n.").root().as<std::int64_t>(), 12);
  EXPECT_TRUE(*pickle::Document("I01\n.").root().as<bool>());
  EXPECT_EQ(*pickle::Document(std::string("G\x3f\xf8\0\0\0\0\0\0.", 10)).root().as<double>(), 1.5);
}

}  // namespace model_state_dict_test
}  // namespace rubato
