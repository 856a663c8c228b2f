#pragma once

#include <string>
#include <vector>

namespace rubato {

// Synchronous pipelines as data: for each stage the list of what it does with one batch, which is cut into micro-batches. A list
// can be printed, checked, timed and drawn without running anything; one executor runs any list that has no fault.

/// One thing that a stage does.
struct PipelineOp {
  enum Kind {
    forward,   ///< one micro-batch forward; receives its activations from the stage below
    backward,  ///< one micro-batch backward; receives its error gradient from the stage above; adds to the step's gradient
    step       ///< applies the sum
  };
  Kind kind = step;
  int micro_batch = -1;  ///< -1: step
  bool operator==(const PipelineOp&) const = default;
};

/// What every stage does with one batch, in order; stage 0 takes the input.
struct PipelinePlan {
  std::string name;
  int micro_batches = 1;
  std::vector<std::vector<PipelineOp>> stages;
};

/// "gpipe", "1f1b"
const std::vector<std::string>& pipeline_names();
/// `stages` >= 1, `micro_batches` >= 1. UsageError for an unknown name.
///   gpipe: all forwards, then all backwards.
///   1f1b:  stage k of K runs min(K - 1 - k, M) forwards ahead, then alternates, then drains.
/// Both go back through the micro-batches in the order of their forwards, so their sums have the same rounding.
PipelinePlan make_pipeline_plan(const std::string& name, int stages, int micro_batches);

/// Why `plan` cannot run, in one sentence: an operation that is missing, doubled or out of order, or stages that wait for each
/// other. Empty: it can.
std::string fault_of(const PipelinePlan& plan);

/// Units of time that a micro-batch takes in one stage; a step takes none.
struct PipelineCosts {
  int forward = 1, backward = 2;
};
struct TimedOp {
  PipelineOp op;
  int begin = 0, end = 0;
};
/// When each operation happens if none waits longer than for its stage and what it receives. The plan has no fault.
std::vector<std::vector<TimedOp>> timeline(const PipelinePlan& plan, const PipelineCosts& costs = {});

/// Share of the stages' time in which they wait.
double bubble_ratio(const PipelinePlan& plan, const PipelineCosts& costs = {});

/// Most passes that a stage holds at once: micro-batches that went forward and not yet back.
int peak_live_activations(const std::vector<PipelineOp>& ops);

/// "F0 F1 B0 B1 S"
std::string to_text(const std::vector<PipelineOp>& ops);

/// One row per stage, one cell per unit of time; a dot is a wait.
std::string drawing(const PipelinePlan& plan, const PipelineCosts& costs = {});

}  // namespace rubato
