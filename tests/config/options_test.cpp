#include "rubato/config/options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <map>
#include <set>

#include "rubato/config/entries.h"
#include "rubato/config/options_table.h"
#include "rubato/core/error.h"

namespace rubato {
namespace config_options_test {

using ::testing::AllOf;
using ::testing::AnyOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

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
  options.coupling = "async-easgd";
  options.values = {{"beta", 0.5}};
  EXPECT_EQ(from_toml(to_toml(options), "x.toml"), options);
  EXPECT_EQ(from_toml(to_toml(resolve(options)), "x.toml"), resolve(options));
}

TEST(TrainOptions, resolving_twice_changes_nothing_more) {
  TrainOptions options;
  options.schedule = "pd-asgd";
  const TrainOptions once = resolve(options);
  EXPECT_EQ(once.values.get<int>("max-in-flight"), 2);
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
  EXPECT_THAT(message_of([&] { resolve(options); }), HasSubstr("--batch-size 0 must be a whole number between 1 and 16777216"));
  options = {};
  options.lr = -0.1;
  EXPECT_THAT(message_of([&] { resolve(options); }), HasSubstr("--lr -0.1"));
  options = {};
  options.period = -3;
  EXPECT_THAT(message_of([&] { resolve(options); }), HasSubstr("--period -3 must be a whole number of at least 1"));
}

/// What tensors of 32 bits hold.
TEST(TrainOptions, that_are_numbers_fit_those_of_tensors) {
  TrainOptions options;
  for (double TrainOptions::*field : {&TrainOptions::clip_norm, &TrainOptions::clip_value, &TrainOptions::warmup_epochs}) {
    options = {};
    options.*field = 1e39;
    EXPECT_THAT(message_of([&] { resolve(options); }), HasSubstr("1e+39 must be a number of 32 bits"));
  }
  for (std::optional<double> TrainOptions::*field :
       {&TrainOptions::lr, &TrainOptions::weight_decay, &TrainOptions::target_loss}) {
    options = {};
    options.*field = 1e300;
    EXPECT_THAT(message_of([&] { resolve(options); }), HasSubstr("1e+300 must be a number of 32 bits"));
  }
  options = {};
  options.coupling = "admm";
  options.values = {{"penalty", 1e39}};
  EXPECT_THAT(message_of([&] { resolve(options); }), HasSubstr("--penalty 1e+39 must be"));
}

TEST(TrainOptions, of_sizes_have_an_end) {
  for (int TrainOptions::*field : {&TrainOptions::width, &TrainOptions::replicas, &TrainOptions::stages, &TrainOptions::prefetch,
                                   &TrainOptions::threads_per_role, &TrainOptions::sequence_length, &TrainOptions::batch_size}) {
    TrainOptions options;
    options.*field = std::numeric_limits<int>::max();
    EXPECT_THAT(message_of([&] { resolve(options); }), HasSubstr("2147483647 must be"));
  }
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

/// Every option that only some entries of a kind read, with every entry that does not, at any value.
TEST(TrainOptions, refuse_what_nothing_reads) {
  for (const EntryKind& kind : entry_kinds()) {
    std::map<std::string, std::set<std::string>> readers;
    for (const EntryView& entry : kind.entries()) {
      for (const std::string& option : entry.reads) readers[option].insert(entry.name);
      for (const OptionSpec& option : entry.options) readers[option.name].insert(entry.name);
    }
    int refused = 0;
    for (const auto& [option, names] : readers) {
      for (const EntryView& entry : kind.entries()) {
        TrainOptions options;
        options.*kind.chosen = entry.name;
        options.values = {{"averaging", "moving"}};
        options.sampling = "shard";
        options.stages = 2;
        options.cuts = "2";
        const std::string sentence = message_of([&] { check_is_read(options, option); });
        if (names.contains(entry.name)) {
          EXPECT_EQ(sentence, "") << option << " " << entry.name;
        } else {
          EXPECT_THAT(sentence, AllOf(HasSubstr("--" + option + " is for --" + kind.name), HasSubstr("not for " + entry.name)));
          ++refused;
        }
      }
    }
    const bool differ = kind.name != "optimizer" && kind.name != "model";
    EXPECT_EQ(refused > 0, differ) << kind.name;
  }
  TrainOptions options;
  options.stale_weights = "live";
  options.probe_bias = 5;
  for (const auto& [option, part] :
       std::map<std::string, std::string>{{"sequence-length", "for --data text"},
                                          {"lr-step-factor", "for --lr-schedule step"},
                                          {"staleness-scaling", "no gradient of --schedule serial"},
                                          {"stale-weights", "no weights of --schedule serial"},
                                          {"probe-bias", "no gradient of --schedule serial"},
                                          {"averaging-rate", "for --averaging moving, not for none"}}) {
    EXPECT_THAT(message_of([&] { check_is_read(options, option); }), HasSubstr(part)) << option;
  }
  EXPECT_THAT(message_of([&] { resolve(options); }), HasSubstr("--stale-weights: no weights"));
  options = {};
  options.data = "text";
  for (const char* option : {"augment", "memory-format"}) {
    EXPECT_THAT(message_of([&] { check_is_read(options, option); }), HasSubstr("or cifar100, not for text: leave it out"))
        << option;
  }
  options.sampling = "shard";
  EXPECT_THAT(message_of([&] { resolve(options); }), AllOf(HasSubstr("--sampling is for --coupling"), HasSubstr("not for none")));
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
  options.values = {{"gradient-shrinking", 1.5}};
  EXPECT_THAT(message_of([&] { resolve(options); }), HasSubstr("--gradient-shrinking 1.5 must be between 0 and 1"));
  options = {};
  options.values = {{"dni-width", 0}};
  EXPECT_THAT(message_of([&] { resolve(options); }), HasSubstr("--dni-width 0"));
  options = {};
  options.values = {{"dni-lr", -1}};
  EXPECT_THAT(message_of([&] { resolve(options); }), HasSubstr("--dni-lr -1"));
}

TEST(TrainOptions, every_option_has_a_name_of_its_own_and_a_help_text) {
  std::set<std::string> names;
  visit_options(TrainOptions{}, [&](const OptionInfo& info, const auto&) {
    EXPECT_TRUE(names.insert(info.name).second) << info.name;
    EXPECT_GT(std::string(info.help).size(), 10u) << info.name;
  });
  for (const EntryOption& option : entry_options()) {
    EXPECT_TRUE(names.insert(option.spec.name).second) << option.spec.name;
    EXPECT_GT(option.spec.help.size(), 10u) << option.spec.name;
    EXPECT_FALSE(option.entries.empty()) << option.spec.name;
  }
}

TEST(TrainOptions, of_entries_stand_in_their_tables) {
  TrainOptions options;
  options.epochs = 3;
  options.schedule = "pd-asgd";
  options.values = {{"forward-threads", 3}};
  options.coupling = "async-easgd";
  const std::string text = to_toml(resolve(options));
  EXPECT_THAT(text, StartsWith("epochs = 3\n"));
  EXPECT_THAT(text, HasSubstr("\n[data]\nname = 'fashion-mnist'\n"));
  EXPECT_THAT(text, HasSubstr("\n[model]\nname = 'resnet8'\n"));
  EXPECT_THAT(text, HasSubstr("\n[optimizer]\nname = 'sgd'\nlr = 0.1"));
  const auto schedule = text.find("\n[schedule]\n"), coupling = text.find("\n[coupling]\n");
  ASSERT_LT(schedule, coupling);
  EXPECT_THAT(text.substr(schedule, coupling - schedule),
              AllOf(HasSubstr("\nname = 'pd-asgd'\n"), HasSubstr("\nforward-threads = 3\n"),
                    HasSubstr("\nbackward-threads = 2\n"), HasSubstr("\nmax-in-flight = 4\n")));
  EXPECT_THAT(text.substr(coupling),
              AllOf(HasSubstr("\nname = 'async-easgd'\n"), HasSubstr("\nmoving-rate = 0.45"), HasSubstr("\nperiod = 10\n")));
  EXPECT_THAT(text, Not(AnyOf(HasSubstr("dni-lr"), HasSubstr("penalty"), HasSubstr("bucket-kib"))));
}

/// What a run of an earlier version has written.
TEST(TrainOptions, are_read_from_flat_files_too) {
  const char* flat =
      "data = 'mnist'\nmodel = 'mlp'\nwidth = 16\nschedule = 'dni'\nstages = 3\ndni-labels = true\ndni-lr = 0.01\nworkers = 2\n"
      "coupling = 'easgd'\nreplicas = 3\nmoving-rate = 0.1\nbucket-kib = 1024\noptimizer = 'adam'\nepochs = 2\n";
  const char* tables =
      "epochs = 2\n[data]\nname = 'mnist'\n[model]\nname = 'mlp'\nwidth = 16\n[schedule]\nname = 'dni'\nstages = 3\n"
      "dni-labels = true\ndni-lr = 0.01\n[coupling]\nname = 'easgd'\nreplicas = 3\nmoving-rate = 0.1\n[optimizer]\nname = "
      "'adam'\n";
  const TrainOptions old = from_toml(flat, "old.toml"), now = from_toml(tables, "new.toml");
  EXPECT_EQ(old.values.get<bool>("dni-labels"), true);
  EXPECT_EQ(old.values.get<double>("dni-lr"), 0.01);
  EXPECT_EQ(resolve(old), resolve(now));
  EXPECT_EQ(first_difference(old, now), std::nullopt) << "what has its default need not be said";
  EXPECT_EQ(from_toml("schedule = { name = 'lpp', partial-after = 7 }", "x.toml").values.get<int>("partial-after"), 7);
}

TEST(TrainOptions, tell_where_a_key_of_a_table_is_wrong) {
  const auto answer = [](const char* text) { return message_of([&] { from_toml(text, "run.toml"); }); };
  EXPECT_THAT(answer("[schedule]\nname = 'ddg'\n  dni-lrr = 1\n"),
              AllOf(HasSubstr("run.toml:3:3: unknown key 'dni-lrr'"), HasSubstr("did you mean 'dni-lr'")));
  EXPECT_THAT(answer("[schedule]\ndni-lr = 'fast'\n"), HasSubstr("run.toml:2:10: 'dni-lr' must be a number"));
  EXPECT_THAT(answer("[schedule]\nworkers = 2.5\n"), HasSubstr("run.toml:2:11: 'workers' must be a whole number"));
  EXPECT_THAT(answer("[schedule]\nepochs = 2\n"), HasSubstr("run.toml:2:1: 'epochs' does not belong into [schedule]"));
  EXPECT_THAT(answer("[coupling]\ndni-lr = 2\n"), HasSubstr("it belongs into [schedule]"));
  EXPECT_THAT(answer("workers = 2\n[schedule]\nworkers = 2\n"),
              HasSubstr("run.toml:1:11: 'workers' stands here and in [schedule]"));
  EXPECT_THAT(answer("[schedules]\nname = 'ddg'\n"), HasSubstr("unknown key 'schedules': did you mean 'schedule'"));
  EXPECT_THAT(answer("schedule = 3\n"), HasSubstr("run.toml:1:12: 'schedule' must be a string"));
  EXPECT_THAT(answer("[schedule]\nname = 'mine'\nmine-size = 3\n"), HasSubstr("unknown schedule 'mine'"));
}

TEST(TrainOptions, that_the_chosen_entries_do_not_read_are_refused_with_those_that_do) {
  const auto answer = [](const std::string& schedule, const std::string& coupling, const OptionValues& values) {
    TrainOptions options;
    options.schedule = schedule;
    options.coupling = coupling;
    options.values = values;
    return message_of([&] { resolve(options); });
  };
  EXPECT_EQ(answer("ddg", "none", {{"dni-lr", 0.5}}), "--dni-lr is for --schedule dni, not for ddg: leave it out, or choose dni");
  EXPECT_EQ(answer("ddg", "none", {{"workers", 3}}),
            "--workers is for --schedule hogwild or lpp, not for ddg: leave it out, or choose one of these");
  EXPECT_EQ(answer("ddg", "none", {{"workers", 2}}), "") << "its default says nothing";
  EXPECT_THAT(answer("ddg", "downpour", {{"beta", 0.5}}),
              HasSubstr("--coupling easgd or async-easgd or eamsgd, not for downpour"));
  EXPECT_THAT(answer("ddg", "easgd", {{"averaging", "mean"}}), HasSubstr("--averaging is for --coupling none"));
  EXPECT_THAT(answer("ddg", "none", {{"averaging-rate", 0.5}}), HasSubstr("--averaging-rate is for --averaging moving"));
  EXPECT_THAT(answer("ddg", "none", {{"dni-lrr", 0.5}}), HasSubstr("unknown option 'dni-lrr': did you mean 'dni-lr'"));
  EXPECT_THAT(answer("dni", "none", {{"dni-labels", 1}}), HasSubstr("--dni-labels must be true or false, which 1 is not"));
  EXPECT_THAT(answer("dni", "none", {{"dni-layers", 1.5}}), HasSubstr("--dni-layers must be a whole number"));
  EXPECT_THAT(answer("serial", "admm", {{"penalty", 0}}), HasSubstr("--penalty 0 must be above 0"));
  EXPECT_THAT(answer("serial", "easgd", {{"moving-rate", 0.1}, {"beta", 0.9}}), HasSubstr("say the same: give one of them"));
}

TEST(TrainOptions, follow_the_number_of_replicas) {
  TrainOptions options;
  options.coupling = "async-easgd";
  options.replicas = 2;
  options = resolve(options);
  EXPECT_EQ(options.values.get<double>("moving-rate"), 0.45);
  const TrainOptions more = resolve(with_replicas(options, 3));
  EXPECT_DOUBLE_EQ(more.values.get<double>("moving-rate"), 0.3);
  EXPECT_DOUBLE_EQ(more.values.get<double>("beta"), 0.9);
  EXPECT_EQ(first_difference(options, more, OtherReplicas::allowed), std::nullopt);
  EXPECT_EQ(first_difference(options, more), "replicas");
}

TEST(TrainOptions, of_another_entry_are_forgotten) {
  TrainOptions options;
  options.schedule = "hogwild";
  options.values = {{"workers", 5}, {"beta", 0.5}};
  EXPECT_TRUE(with_schedule(options, "lpp").values.has("workers"));
  EXPECT_FALSE(with_schedule(options, "ddg").values.has("workers"));
  EXPECT_TRUE(with_schedule(options, "ddg").values.has("beta"));
  EXPECT_FALSE(with_coupling(options, "easgd").values.has("beta")) << "it may be what another coupling worked out";
  options.probe_bias = 5;
  options.staleness_scaling = "inverse";
  EXPECT_EQ(with_schedule(options, "ddg").probe_bias, 5);
  EXPECT_EQ(with_schedule(options, "serial").probe_bias, 0);
  EXPECT_EQ(with_schedule(options, "serial").staleness_scaling, "none");
  options.coupling = "downpour";
  EXPECT_EQ(with_schedule(options, "serial").staleness_scaling, "inverse");
  EXPECT_EQ(with_coupling(with_schedule(options, "serial"), "none").staleness_scaling, "none");
}

}  // namespace config_options_test
}  // namespace rubato
