#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <stdexcept>

#include "rubato/core/error.h"
#include "rubato/schedules/pipeline.h"

namespace rubato {
namespace {

using Ops = std::vector<PipelineOp>;

Ops gpipe_ops(int, int, int micro_batches) {
  Ops ops;
  for (int m = 0; m < micro_batches; ++m) ops.push_back({PipelineOp::forward, m});
  for (int m = 0; m < micro_batches; ++m) ops.push_back({PipelineOp::backward, m});
  return ops;
}

Ops one_f_one_b_ops(int stage, int stages, int micro_batches) {
  const int ahead = std::min(stages - 1 - stage, micro_batches);
  Ops ops;
  for (int m = 0; m < ahead; ++m) ops.push_back({PipelineOp::forward, m});
  for (int m = 0; m < micro_batches; ++m) {
    if (ahead + m < micro_batches) ops.push_back({PipelineOp::forward, ahead + m});
    ops.push_back({PipelineOp::backward, m});
  }
  return ops;
}

struct Row {
  std::string name;
  Ops (*ops)(int stage, int stages, int micro_batches);
};

const std::vector<Row>& rows() {
  static const std::vector<Row> table = {{"gpipe", gpipe_ops}, {"1f1b", one_f_one_b_ops}};
  return table;
}

std::string to_text(const PipelineOp& op) {
  return op.kind == PipelineOp::step ? "S" : fmt::format("{}{}", op.kind == PipelineOp::forward ? 'F' : 'B', op.micro_batch);
}

/// Faults that one list shows without the others.
std::string fault_of_stage(const Ops& ops, int stage, int micro_batches) {
  std::vector<int> forwards(micro_batches, 0), backwards(micro_batches, 0);
  int steps = 0;
  for (const PipelineOp& op : ops) {
    const auto fault = [&](const char* what) { return fmt::format("stage {}: {} {}", stage, to_text(op), what); };
    if (steps > 0) return fault("comes after the step");
    if (op.kind == PipelineOp::step) {
      ++steps;
      continue;
    }
    if (op.micro_batch < 0 || op.micro_batch >= micro_batches) return fault("names a micro-batch that does not exist");
    int& count = (op.kind == PipelineOp::forward ? forwards : backwards)[op.micro_batch];
    if (++count > 1) return fault("comes twice");
    if (op.kind == PipelineOp::backward && forwards[op.micro_batch] == 0) return fault("comes before its forward");
  }
  for (int m = 0; m < micro_batches; ++m) {
    if (forwards[m] == 0) return fmt::format("stage {}: F{} is missing", stage, m);
    if (backwards[m] == 0) return fmt::format("stage {}: B{} is missing", stage, m);
  }
  return steps == 0 ? fmt::format("stage {}: the step is missing", stage) : "";
}

/// Runs the lists against each other, each operation as early as possible.
class Clockwork {
 public:
  Clockwork(const PipelinePlan& plan, const PipelineCosts& costs)
      : plan_(plan),
        costs_(costs),
        done_(plan.stages.size()),
        forward_end_(plan.stages.size(), std::vector<std::optional<int>>(plan.micro_batches)),
        backward_end_(forward_end_) {}

  /// False where stages wait for each other.
  bool run() {
    for (bool moved = true; moved;) {
      moved = false;
      for (std::size_t k = 0; k < plan_.stages.size(); ++k) {
        while (done_[k].size() < plan_.stages[k].size() && advance(k)) moved = true;
      }
    }
    for (std::size_t k = 0; k < done_.size(); ++k) {
      if (done_[k].size() < plan_.stages[k].size()) return false;
    }
    return true;
  }

  const std::vector<std::vector<TimedOp>>& done() const { return done_; }

 private:
  bool advance(std::size_t k) {
    const PipelineOp op = plan_.stages[k][done_[k].size()];
    int begin = done_[k].empty() ? 0 : done_[k].back().end;
    const bool is_forward = op.kind == PipelineOp::forward;
    const bool from_elsewhere = is_forward ? k > 0 : op.kind == PipelineOp::backward && k + 1 < plan_.stages.size();
    if (from_elsewhere) {
      const auto arrived = is_forward ? forward_end_[k - 1][op.micro_batch] : backward_end_[k + 1][op.micro_batch];
      if (!arrived) return false;
      begin = std::max(begin, *arrived);
    }
    const int end = begin + (is_forward ? costs_.forward : op.kind == PipelineOp::backward ? costs_.backward : 0);
    if (op.kind != PipelineOp::step) (is_forward ? forward_end_ : backward_end_)[k][op.micro_batch] = end;
    done_[k].push_back({op, begin, end});
    return true;
  }

  const PipelinePlan& plan_;
  PipelineCosts costs_;
  std::vector<std::vector<TimedOp>> done_;
  std::vector<std::vector<std::optional<int>>> forward_end_, backward_end_;  // by stage and micro-batch
};

int makespan(const std::vector<std::vector<TimedOp>>& times) {
  int end = 0;
  for (const auto& stage : times) end = std::max(end, stage.back().end);
  return end;
}

}  // namespace

const std::vector<std::string>& pipeline_names() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> all;
    for (const Row& row : rows()) all.push_back(row.name);
    return all;
  }();
  return names;
}

PipelinePlan make_pipeline_plan(const std::string& name, int stages, int micro_batches) {
  for (const Row& row : rows()) {
    if (row.name != name) continue;
    PipelinePlan plan{.name = name, .micro_batches = micro_batches};
    for (int k = 0; k < stages; ++k) {
      plan.stages.push_back(row.ops(k, stages, micro_batches));
      plan.stages.back().push_back({PipelineOp::step});
    }
    return plan;
  }
  throw unknown_name("pipeline", name, pipeline_names());
}

std::string fault_of(const PipelinePlan& plan) {
  for (std::size_t k = 0; k < plan.stages.size(); ++k) {
    std::string fault = fault_of_stage(plan.stages[k], static_cast<int>(k), plan.micro_batches);
    if (!fault.empty()) return fault;
  }
  Clockwork clockwork(plan, {});
  if (clockwork.run()) return "";
  std::vector<std::string> waiting;
  for (std::size_t k = 0; k < plan.stages.size(); ++k) {
    const std::size_t next = clockwork.done()[k].size();
    if (next < plan.stages[k].size()) waiting.push_back(fmt::format("stage {} before {}", k, to_text(plan.stages[k][next])));
  }
  return "deadlock: " + join(waiting) + " wait for each other";
}

std::vector<std::vector<TimedOp>> timeline(const PipelinePlan& plan, const PipelineCosts& costs) {
  if (const std::string fault = fault_of(plan); !fault.empty()) throw std::logic_error("pipeline " + plan.name + ": " + fault);
  Clockwork clockwork(plan, costs);
  clockwork.run();
  return clockwork.done();
}

double bubble_ratio(const PipelinePlan& plan, const PipelineCosts& costs) {
  const int busy = plan.micro_batches * (costs.forward + costs.backward);
  return 1.0 - static_cast<double>(busy) / makespan(timeline(plan, costs));
}

int peak_live_activations(const std::vector<PipelineOp>& ops) {
  int live = 0, peak = 0;
  for (const PipelineOp& op : ops) {
    if (op.kind == PipelineOp::forward) peak = std::max(peak, ++live);
    if (op.kind == PipelineOp::backward) --live;
  }
  return peak;
}

std::string to_text(const std::vector<PipelineOp>& ops) {
  std::vector<std::string> words;
  for (const PipelineOp& op : ops) words.push_back(to_text(op));
  return join(words, " ");
}

std::string drawing(const PipelinePlan& plan, const PipelineCosts& costs) {
  const auto times = timeline(plan, costs);
  const std::size_t width = 1 + std::to_string(plan.micro_batches - 1).size();
  const std::size_t stage_width = std::to_string(plan.stages.size() - 1).size();
  std::string text;
  for (std::size_t k = 0; k < times.size(); ++k) {
    std::vector<std::string> cells(makespan(times), ".");
    for (const TimedOp& timed : times[k]) std::fill(cells.begin() + timed.begin, cells.begin() + timed.end, to_text(timed.op));
    std::string row = fmt::format("stage {:>{}} ", k, stage_width);
    for (const std::string& cell : cells) row += fmt::format(" {:<{}}", cell, width);
    text += row.substr(0, row.find_last_not_of(' ') + 1) + "\n";
  }
  return text;
}

}  // namespace rubato
