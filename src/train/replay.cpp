#include "rubato/train/replay.h"

#include "rubato/checkpoint/checkpoint.h"
#include "rubato/core/error.h"
#include "rubato/io/files.h"
#include "rubato/observe/meter.h"
#include "rubato/recording/replayer.h"

namespace rubato {
namespace {

/// What the run trained, without how it was watched and slowed down.
TrainOptions options_of(const std::filesystem::path& run) {
  const std::filesystem::path file = run / "config.toml";
  TrainOptions options = from_toml(read_file(file), file.string());
  options.run_dir.clear();
  options.inject_delay.clear();
  options.record = options.trace = false;
  return options;
}

}  // namespace

ReplayResult replay(const std::filesystem::path& run, const RuntimeChoice& runtime) {
  if (!std::filesystem::exists(run / recording_file)) {
    throw DataError(run.string() + " holds no " + recording_file + ": record one with `rubato train --record`");
  }
  Replayer replayer(load_recording(run / recording_file));
  Plan plan = make_plan(options_of(run), runtime);
  if (!plan.options.init_from.empty()) load_weights(find_weights(plan.options.init_from), plan.model);
  StepMeter meter;
  Job job(plan.model, plan.job(), meter);
  RuntimeOptions roles = plan.roles;
  roles.order = &replayer;
  roles.one_thread = false;
  const std::unique_ptr<Runtime> executor = make_runtime(plan, roles);
  const auto& segments = replayer.recording().segments;
  for (std::size_t i = 0; i < segments.size(); ++i) {
    replayer.begin_segment(i);
    job.open(segments[i].begin, segments[i].end);
    executor->run(job.roles());
    replayer.end_segment();
  }
  ReplayResult result{.steps = segments.empty() ? 0 : segments.back().end,
                      .events = replayer.recording().events(),
                      .weights_digest = job.digest()};
  if (result.weights_digest != replayer.recording().weights_digest) {
    throw DataError("the replay differs from the recording: the weights at the end have digest " + result.weights_digest +
                    " instead of " + replayer.recording().weights_digest);
  }
  return result;
}

}  // namespace rubato
