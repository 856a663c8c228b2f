// Huang et al. 2019, "GPipe", and Narayanan et al. 2021, "Memory-Efficient Pipeline-Parallel DNN Training": their statements
// about idle time and memory, counted from the lists of operations and observed in virtual time.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "rubato/observe/trace.h"
#include "rubato/schedules/pipeline.h"
#include "support/lab.h"

namespace rubato {
namespace paper_pipelines_test {

struct Shape {
  int stages, micro_batches;
};

std::vector<Shape> shapes() {
  std::vector<Shape> all;
  for (const int stages : {1, 2, 3, 4, 7}) {
    for (const int micro_batches : {1, 2, 3, 4, 8, 13}) all.push_back({stages, micro_batches});
  }
  return all;
}

TEST(Pipelines, wait_for_a_share_of_K_minus_1_in_M_plus_K_minus_1) {
  for (const std::string& name : pipeline_names()) {
    for (const auto [stages, micro_batches] : shapes()) {
      const double expected = static_cast<double>(stages - 1) / (micro_batches + stages - 1);
      EXPECT_NEAR(bubble_ratio(make_pipeline_plan(name, stages, micro_batches)), expected, 1e-12)
          << name << " K " << stages << " M " << micro_batches;
    }
  }
}

TEST(Pipelines, the_bubble_does_not_depend_on_what_a_backward_costs) {
  for (const std::string& name : pipeline_names()) {
    for (const PipelineCosts costs : {PipelineCosts{1, 1}, PipelineCosts{1, 3}, PipelineCosts{2, 3}}) {
      EXPECT_NEAR(bubble_ratio(make_pipeline_plan(name, 4, 6), costs), 3.0 / 9, 1e-12) << name;
    }
  }
}

TEST(Pipelines, gpipe_holds_M_activations_in_every_stage) {
  for (const auto [stages, micro_batches] : shapes()) {
    for (const auto& ops : make_pipeline_plan("gpipe", stages, micro_batches).stages) {
      EXPECT_EQ(peak_live_activations(ops), micro_batches);
    }
  }
}

TEST(Pipelines, one_f_one_b_holds_no_more_than_K_minus_k) {
  for (const auto [stages, micro_batches] : shapes()) {
    const PipelinePlan plan = make_pipeline_plan("1f1b", stages, micro_batches);
    for (int k = 0; k < stages; ++k) {
      EXPECT_EQ(peak_live_activations(plan.stages[static_cast<std::size_t>(k)]), std::min(stages - k, micro_batches));
    }
  }
}

/// What the executor did with one batch: when it was done, and how many passes each role held at most.
struct Observed {
  double seconds = 0;
  std::map<std::string, int> peak;
};

Observed execute(const std::string& name, int micro_batches) {
  Trace trace;
  // Three stages of one block each; a micro-batch takes 1 second forward and 2 back.
  const double whole = micro_batches;
  test::Lab lab(test::small_model("mlp"),
                {.schedule = {.name = name, .cuts = {1, 2}, .values = {{"micro-batches", micro_batches}}},
                 .store = test::sgd(),
                 .batch_size = 2 * micro_batches,
                 .costs = std::vector<BlockCost>(3, BlockCost{whole, 2 * whole, 0})});
  const auto runtime = make_simulator({.hosts = 3, .link_bytes_per_second = 1e15, .link_latency_seconds = 0}, {.events = &trace});
  lab.run(*runtime, 0, 1);
  Observed observed;
  std::map<std::string, int> live;
  for (const Trace::Entry& entry : trace.entries()) {
    observed.seconds = std::max(observed.seconds, entry.end);
    if (entry.event.kind != EventKind::compute) continue;
    int& now = live[entry.role];
    if (entry.event.what.starts_with("forward")) observed.peak[entry.role] = std::max(observed.peak[entry.role], ++now);
    if (entry.event.what.starts_with("backward")) --now;
  }
  return observed;
}

TEST(Pipelines, the_executor_takes_the_time_and_the_memory_that_the_lists_say) {
  if (!test::has_simulator()) GTEST_SKIP() << "built without SimGrid";
  for (const std::string& name : pipeline_names()) {
    for (const int micro_batches : {1, 2, 5}) {
      const Observed observed = execute(name, micro_batches);
      EXPECT_NEAR(observed.seconds, (micro_batches + 2) * 3, 1e-6) << name << " M " << micro_batches;
      const PipelinePlan plan = make_pipeline_plan(name, 3, micro_batches);
      for (int k = 0; k < 3; ++k) {
        EXPECT_EQ(observed.peak.at(name + "-" + std::to_string(k)),
                  peak_live_activations(plan.stages[static_cast<std::size_t>(k)]));
      }
    }
  }
}

}  // namespace paper_pipelines_test
}  // namespace rubato
