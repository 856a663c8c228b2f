#include "rubato/schedules/pipeline.h"

#include <gtest/gtest.h>

#include "rubato/core/error.h"

namespace rubato {
namespace schedules_pipeline_plan_test {

using Op = PipelineOp;

TEST(PipelinePlan, gpipe_goes_forward_with_all_and_then_back) {
  const PipelinePlan plan = make_pipeline_plan("gpipe", 2, 3);
  for (const auto& ops : plan.stages) EXPECT_EQ(to_text(ops), "F0 F1 F2 B0 B1 B2 S");
}

TEST(PipelinePlan, one_f_one_b_warms_up_alternates_and_drains) {
  const PipelinePlan plan = make_pipeline_plan("1f1b", 3, 4);
  EXPECT_EQ(to_text(plan.stages[0]), "F0 F1 F2 B0 F3 B1 B2 B3 S");
  EXPECT_EQ(to_text(plan.stages[1]), "F0 F1 B0 F2 B1 F3 B2 B3 S");
  EXPECT_EQ(to_text(plan.stages[2]), "F0 B0 F1 B1 F2 B2 F3 B3 S");
}

TEST(PipelinePlan, one_f_one_b_with_fewer_micro_batches_than_stages_is_gpipe_below) {
  const PipelinePlan plan = make_pipeline_plan("1f1b", 4, 2);
  EXPECT_EQ(to_text(plan.stages[0]), "F0 F1 B0 B1 S");
  EXPECT_EQ(to_text(plan.stages[3]), "F0 B0 F1 B1 S");
}

TEST(PipelinePlan, what_is_generated_has_no_fault) {
  for (const std::string& name : pipeline_names()) {
    for (int stages = 1; stages <= 6; ++stages) {
      for (int micro_batches = 1; micro_batches <= 9; ++micro_batches) {
        EXPECT_EQ(fault_of(make_pipeline_plan(name, stages, micro_batches)), "") << name << stages << "," << micro_batches;
      }
    }
  }
}

TEST(PipelinePlan, an_unknown_name_is_refused) {
  EXPECT_THROW(make_pipeline_plan("1f2b", 2, 2), UsageError);
}

/// Two stages, two micro-batches; the upper stage does `ops`.
std::string fault_above(std::vector<Op> ops) {
  PipelinePlan plan = make_pipeline_plan("gpipe", 2, 2);
  plan.stages[1] = std::move(ops);
  return fault_of(plan);
}

TEST(PipelinePlan, faults_of_one_list_are_named) {
  EXPECT_EQ(fault_above({{Op::forward, 0}, {Op::backward, 0}, {Op::backward, 1}, {Op::step}}),
            "stage 1: B1 comes before its forward");
  EXPECT_EQ(fault_above({{Op::forward, 0}, {Op::backward, 0}, {Op::step}}), "stage 1: F1 is missing");
  EXPECT_EQ(fault_above({{Op::forward, 0}, {Op::forward, 1}, {Op::backward, 0}, {Op::step}}), "stage 1: B1 is missing");
  EXPECT_EQ(fault_above({{Op::forward, 0}, {Op::forward, 0}}), "stage 1: F0 comes twice");
  EXPECT_EQ(fault_above({{Op::forward, 2}}), "stage 1: F2 names a micro-batch that does not exist");
  EXPECT_EQ(fault_above({{Op::forward, 0}, {Op::forward, 1}, {Op::backward, 0}, {Op::backward, 1}}),
            "stage 1: the step is missing");
  EXPECT_EQ(fault_above({{Op::step}, {Op::forward, 0}}), "stage 1: F0 comes after the step");
}

TEST(PipelinePlan, stages_that_wait_for_each_other_are_found) {
  PipelinePlan plan = make_pipeline_plan("gpipe", 2, 2);
  plan.stages[0] = {{Op::forward, 0}, {Op::backward, 0}, {Op::forward, 1}, {Op::backward, 1}, {Op::step}};
  EXPECT_EQ(fault_of(plan), "deadlock: stage 0 before B0, stage 1 before F1 wait for each other");
  EXPECT_THROW(timeline(plan), std::logic_error);
}

TEST(PipelinePlan, is_drawn_with_a_cell_per_unit_of_time) {
  EXPECT_EQ(drawing(make_pipeline_plan("gpipe", 2, 2)),
            "stage 0  F0 F1 .  .  .  B0 B0 B1 B1\n"
            "stage 1  .  F0 F1 B0 B0 B1 B1 .  .\n");
  EXPECT_EQ(drawing(make_pipeline_plan("1f1b", 2, 2)),
            "stage 0  F0 F1 .  .  B0 B0 .  B1 B1\n"
            "stage 1  .  F0 B0 B0 F1 B1 B1 .  .\n");
}

}  // namespace schedules_pipeline_plan_test
}  // namespace rubato
