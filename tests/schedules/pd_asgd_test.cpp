#include <gtest/gtest.h>

#include <map>

#include "rubato/observe/trace.h"
#include "support/lab.h"

namespace rubato {
namespace schedules_pd_asgd_test {

using test::Lab;

struct Observed {
  int most_passes_in_flight = 0;
  std::vector<StalenessCount> staleness;
};

/// `batches` batches of pd-asgd in virtual time, forward 1 second and backward 2 per block, three blocks.
Observed simulate(ScheduleOptions schedule, int batches) {
  schedule.name = "pd-asgd";
  Trace trace;
  Lab lab(test::small_model("mlp"),
          {.schedule = schedule, .store = test::sgd(0.01), .costs = std::vector<BlockCost>(3, BlockCost{1, 2, 0})});
  lab.run(*make_simulator({.hosts = 8}, {.events = &trace}), 0, batches);
  std::map<double, int> change;  // +1 where a forward begins, -1 where the backward of block 0 has published
  for (const Trace::Entry& entry : trace.entries()) {
    if (entry.event.kind == EventKind::compute && entry.event.computation.kind == ComputeKind::forward) ++change[entry.begin];
    if (entry.event.kind == EventKind::publish && entry.event.block == 0) --change[entry.end];
  }
  Observed observed;
  int now = 0;
  for (const auto& [time, delta] : change) {
    now += delta;
    observed.most_passes_in_flight = std::max(observed.most_passes_in_flight, now);
  }
  for (int block = 0; block < lab.store.block_count(); ++block) observed.staleness.push_back(lab.store.staleness(block));
  return observed;
}

TEST(PdAsgd, keeps_as_many_passes_in_flight_as_allowed_and_never_more) {
  for (const int most : {1, 2, 3, 5}) {
    const Observed observed =
        simulate({.values = {{"forward-threads", 2}, {"backward-threads", 4}, {"max-in-flight", most}}}, 30);
    EXPECT_EQ(observed.most_passes_in_flight, most);
  }
}

TEST(PdAsgd, every_block_gets_one_update_per_batch) {
  for (const StalenessCount& count :
       simulate({.values = {{"forward-threads", 2}, {"backward-threads", 3}, {"max-in-flight", 4}}}, 25).staleness) {
    EXPECT_EQ(count.updates, 25);
  }
}

TEST(PdAsgd, staleness_is_bounded_by_the_other_passes_in_flight) {
  for (const StalenessCount& count :
       simulate({.values = {{"forward-threads", 1}, {"backward-threads", 2}, {"max-in-flight", 3}}}, 40).staleness) {
    EXPECT_LE(count.max, 2);
    EXPECT_GT(count.max, 0);
  }
}

// With layer-wise publication the last layer is updated while the walk is still on its way down, so that a forward pass that
// begins meanwhile already sees it.
TEST(PdAsgd, layer_wise_publication_makes_the_last_layer_fresher_than_whole_model_publication) {
  const ScheduleOptions options{.values = {{"forward-threads", 1}, {"backward-threads", 2}, {"max-in-flight", 3}}};
  ScheduleOptions whole = options;
  whole.publish = Publish::model;
  const Observed layers = simulate(options, 60), model = simulate(whole, 60);
  EXPECT_LT(layers.staleness.back().mean(), model.staleness.back().mean());
  EXPECT_LE(layers.staleness.front().mean(), model.staleness.front().mean());
}

TEST(PdAsgd, default_bound_is_one_pass_less_than_threads_but_at_least_two) {
  const auto passes = [](int forward, int backward) {
    const OptionValues threads{{"forward-threads", forward}, {"backward-threads", backward}};
    return completed({.name = "pd-asgd", .values = threads}).values.get<int>("max-in-flight");
  };
  EXPECT_EQ(passes(1, 2), 2);
  EXPECT_EQ(passes(1, 1), 2);
  EXPECT_EQ(passes(2, 4), 5);
}

}  // namespace schedules_pd_asgd_test
}  // namespace rubato
