// state.json says what its checkpoint is: whatever in it is changed, the checkpoint is damaged and passed over.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "rubato/checkpoint/checkpoint.h"
#include "rubato/io/files.h"
#include "rubato/model/model.h"
#include "support/lab.h"
#include "support/temporary_directory.h"

namespace rubato {
namespace checkpoint_state_json_test {

using ::testing::HasSubstr;
using Json = nlohmann::ordered_json;

class StateJson : public ::testing::Test {
 protected:
  void SetUp() override {
    struct Nothing final : Restorable {
      void save(torch::serialize::OutputArchive& archive) const override { archive.write("x", torch::IValue(std::int64_t{1})); }
      void load(torch::serialize::InputArchive&) override {}
    } nothing;
    Progress progress{.step = 40, .replicas = 2, .seconds = 1.5};
    progress.test = Evaluation{93.75, 0.1};
    progress.meter.now = {.steps = 80, .samples = 640, .time = 1.25, .loss = 1e-17};
    progress.staleness = {{80, 3, 1}};
    progress.data = "abc";
    CheckpointFolder(folder.path()).write(progress, WeightStore(test::small_model("mlp"), {}), nothing, "x = 1\n");
    file = CheckpointFolder(folder.path()).newest()->folder / "state.json";
    text = read_file(file);
  }
  /// Why the checkpoint with `content` as its state.json is none; empty: it is one.
  std::string reason(const std::string& content) {
    std::ofstream(file, std::ios::trunc) << content;
    std::vector<std::string> rejected;
    return CheckpointFolder(folder.path()).newest(&rejected) ? "" : rejected.at(0);
  }
  /// As an earlier version wrote it: without a checksum, and with another value at `key`.
  std::string old(const std::string& key, const Json& value) {
    Json json = Json::parse(text);
    json.erase("sha256");
    json[key] = value;
    return reason(json.dump());
  }

  test::TemporaryDirectory folder;
  std::filesystem::path file;
  std::string text;
};

TEST_F(StateJson, is_read_as_it_was_written) {
  const auto found = CheckpointFolder(folder.path()).newest();
  EXPECT_EQ(found->progress.step, 40);
  EXPECT_EQ(found->progress.meter.now.loss, 1e-17);
  EXPECT_EQ(found->progress.test->accuracy, 93.75);
  EXPECT_EQ(reason(Json::parse(text).dump()), "");  // laid out otherwise it says the same
}

TEST_F(StateJson, every_digit_that_flips_is_noticed) {
  int flipped = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (std::isdigit(static_cast<unsigned char>(text[i])) == 0) continue;
    std::string other = text;
    other[i] = static_cast<char>(other[i] ^ 1);
    EXPECT_NE(reason(other), "") << "byte " << i;
    ++flipped;
  }
  EXPECT_GT(flipped, 200);
}

TEST_F(StateJson, fields_of_earlier_versions_are_in_their_ranges) {
  EXPECT_EQ(old("step", 41), "");  // nobody can know
  for (const Json& step : {Json(-1), Json(1e30), Json(1.5), Json("x"), Json(std::int64_t{1} << 60), Json()}) {
    EXPECT_THAT(old("step", step), HasSubstr("'step' must be a whole number from 0")) << step;
  }
  EXPECT_THAT(old("seconds", -1), HasSubstr("'seconds' must be a number from 0"));
  for (const int replicas : {0, -3}) EXPECT_THAT(old("replicas", replicas), HasSubstr("'replicas' must be"));
  EXPECT_THAT(old("samples", -1), HasSubstr("'samples' must be"));
  EXPECT_THAT(old("metrics_bytes", -5), HasSubstr("'metrics_bytes' must be"));
  EXPECT_THAT(old("staleness", Json::array({Json::array({1})})), HasSubstr("three numbers"));
  EXPECT_THAT(old("staleness", Json::array({Json::array({1, -1, 1})})), HasSubstr("'staleness' must be"));
  EXPECT_THAT(old("test", "x"), HasSubstr("'test' must be"));
  EXPECT_THAT(old("data", 3), HasSubstr("'data' must be text"));
}

TEST_F(StateJson, lists_every_file_and_no_other) {
  EXPECT_THAT(old("files", Json::object()), HasSubstr("does not list config.toml"));
  Json files = Json::parse(text)["files"];
  files["../../x"] = files["state.pt"];
  EXPECT_THAT(old("files", files), HasSubstr("'../../x' is in its list"));
  files.erase("../../x");
  files["state.pt"] = 3;
  EXPECT_THAT(old("files", files), HasSubstr("'state.pt' is in its list"));
}

TEST_F(StateJson, that_is_no_object_is_refused_in_words_of_ours) {
  for (const std::string& other : {std::string("null"), std::string("[]"), std::string(), text.substr(0, text.size() / 2),
                                   std::string(1'000'000, '['), "{\"a\":" + std::string(100'000, '[')}) {
    EXPECT_THAT(reason(other), HasSubstr("state.json"));
    EXPECT_THAT(reason(other), ::testing::Not(HasSubstr("exception")));
  }
}

}  // namespace checkpoint_state_json_test
}  // namespace rubato
