#include "rubato/config/options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "rubato/config/options_table.h"
#include "rubato/core/error.h"
#include "rubato/config/options_table.h"
#include "rubato/couplings/coupling.h"
#include "rubato/schedules/schedule.h"

namespace rubato {
namespace config_options_test {

using ::testing::HasSubstr;

template <class Call>
std::string message_of(Call call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(TrainOptions, survive_toml) {
  TrainOptions options;
  options.schedule = "ddg";
  options.lr = 0.025;
  options.steps = 7;
  options.augment = true;
  options.inject_delay = {"ddg-0:5", "ddg-1:1-2"};
  EXPECT_EQ(from_toml(to_toml(options), "x.toml"), options);
  EXPECT_EQ(from_toml(to_toml(resolve(options)), "x.toml"), resolve(options));
}

TEST(TrainOptions, resolving_twice_changes_nothing_more) {
  TrainOptions options;
  options.schedule = "pd-asgd";
  const TrainOptions once = resolve(options);
  EXPECT_EQ(once.max_in_flight, 2);
  EXPECT_EQ(*once.lr, 0.1);
  EXPECT_EQ(resolve(once), once);
}

TEST(TrainOptions, tell_file_line_and_the_nearest_key) {
  const std::string text = message_of([] { from_toml("epochs = 3\nschedul = \"ddg\"\n", "run.toml"); });
  EXPECT_THAT(text, HasSubstr("run.toml:2"));
  EXPECT_THAT(text, HasSubstr("did you mean 'schedule'"));
  EXPECT_THAT(message_of([] { from_toml("epochs = \"three\"", "run.toml"); }), HasSubstr("run.toml:1"));
  EXPECT_THAT(message_of([] { from_toml("epochs = 3.5", "run.toml"); }), HasSubstr("whole number"));
  EXPECT_THAT(message_of([] { from_toml("epochs = = 3", "run.toml"); }), HasSubstr("not TOML"));
}

TEST(TrainOptions, name_value_and_range_of_what_is_out_of_range) {
  TrainOptions options;
  options.batch_size = 0;
  EXPECT_THAT(message_of([&] { resolve(options); }), HasSubstr("--batch-size 0 must be a finite number of at least 1"));
  options = {};
  options.lr = -0.1;
  EXPECT_THAT(message_of([&] { resolve(options); }), HasSubstr("--lr -0.1"));
}

TEST(TrainOptions, refuse_combinations_that_cannot_work_in_one_sentence) {
  TrainOptions options;
  options.replicas = 2;
  EXPECT_THAT(message_of([&] { resolve(options); }), HasSubstr("never meet"));
  options = {};
  options.schedule = "pd-asgd";
  options.stale_weights = "replayed";
  EXPECT_THAT(message_of([&] { resolve(options); }), HasSubstr("use stashed or live"));
  for (const char* pipeline : {"gpipe", "1f1b"}) {
    options.schedule = pipeline;
    EXPECT_THAT(message_of([&] { resolve(options); }), HasSubstr("leave --stale-weights at stashed"));
  }
  for (const char* coupling : {"allreduce", "mdownpour", "admm"}) {
    options = {};
    options.schedule = "lpp";
    options.coupling = coupling;
    EXPECT_THAT(message_of([&] { resolve(options); }), HasSubstr("--schedule"));
  }
  options.coupling = "lap";
  EXPECT_EQ(message_of([&] { resolve(options); }), "");
  options = {};
  options.schedule = "features-replay";
  for (const char* stale : {"stashed", "live"}) {
    options.stale_weights = stale;
    EXPECT_THAT(message_of([&] { resolve(options); }), HasSubstr("always computes the forward pass again"));
  }
}

/// Every option that only some schedules or couplings read, with every schedule and every coupling that does not, at any value.
TEST(TrainOptions, refuse_what_nothing_reads) {
  const auto matrix = [](const auto& entries, const std::string& kind, const auto& choose) {
    std::map<std::string, std::set<std::string>> readers;
    for (const auto& entry : entries) {
      for (const std::string& option : entry.options) readers[option].insert(entry.name);
    }
    int refused = 0;
    for (const auto& [option, names] : readers) {
      for (const auto& entry : entries) {
        TrainOptions options;
        choose(options, entry.name);
        const std::string sentence = message_of([&] { check_is_read(options, option); });
        if (names.contains(entry.name)) {
          EXPECT_EQ(sentence, "") << option << " " << entry.name;
        } else if (option != "stages") {  // of which one is no cut
          EXPECT_THAT(sentence,
                      ::testing::AllOf(HasSubstr("--" + option + " is for --" + kind), HasSubstr("not for " + entry.name)));
          ++refused;
        }
      }
    }
    EXPECT_GT(refused, 20);
  };
  matrix(schedules(), "schedule", [](TrainOptions& o, const std::string& name) { o.schedule = name; });
  matrix(couplings(), "coupling", [](TrainOptions& o, const std::string& name) { o.coupling = name; });
  TrainOptions options;
  for (const auto& [option, part] :
       std::map<std::string, std::string>{{"sequence-length", "for --data text"},
                                          {"lr-step-factor", "for --lr-schedule step"},
                                          {"staleness-scaling", "no gradient of --schedule serial"}}) {
    EXPECT_THAT(message_of([&] { check_is_read(options, option); }), HasSubstr(part)) << option;
  }
  options.data = "text";
  for (const char* option : {"augment", "memory-format"}) {
    EXPECT_THAT(message_of([&] { check_is_read(options, option); }), HasSubstr("for images")) << option;
  }
  options.sampling = "shard";
  EXPECT_THAT(message_of([&] { resolve(options); }), HasSubstr("--sampling is for replicas"));
  options = {};
  options.schedule = "ddg";
  options.stages = 1;
  options.cuts = "2";
  EXPECT_THAT(message_of([&] { resolve(options); }), HasSubstr("--cuts 2 with a single stage"));
}

TEST(TrainOptions, stale_weights_follow_the_schedule_unless_given) {
  TrainOptions options;
  EXPECT_EQ(resolve(options).stale_weights, "stashed");
  options.schedule = "features-replay";
  EXPECT_EQ(resolve(options).stale_weights, "replayed");
  EXPECT_EQ(resolve(resolve(options)), resolve(options));
  options.schedule = "ddg";
  options.stale_weights = "live";
  EXPECT_EQ(resolve(options).stale_weights, "live");
}

TEST(TrainOptions, numbers_of_the_staged_schedules_have_ranges) {
  TrainOptions options;
  options.gradient_shrinking = 1.5;
  EXPECT_THAT(message_of([&] { resolve(options); }), HasSubstr("--gradient-shrinking 1.5 must be between 0 and 1"));
  options = {};
  options.dni_width = 0;
  EXPECT_THAT(message_of([&] { resolve(options); }), HasSubstr("--dni-width 0"));
  options = {};
  options.dni_lr = -1;
  EXPECT_THAT(message_of([&] { resolve(options); }), HasSubstr("--dni-lr -1"));
}

TEST(TrainOptions, every_option_has_a_name_of_its_own_and_a_help_text) {
  std::set<std::string> names;
  visit_options(TrainOptions{}, [&](const OptionInfo& info, const auto&) {
    EXPECT_TRUE(names.insert(info.name).second) << info.name;
    EXPECT_GT(std::string(info.help).size(), 10u) << info.name;
  });
}

}  // namespace config_options_test
}  // namespace rubato
