// What a run leaves behind that is stopped at an awkward moment.
#include <gtest/gtest.h>

#include "rubato/recording/recording.h"
#include "rubato/train/replay.h"
#include "rubato/train/trainer.h"
#include "support/small_mnist.h"
#include "support/temporary_directory.h"

namespace rubato {
namespace train_interrupted_test {

namespace fs = std::filesystem;

/// A signal between the moment that a segment is wanted and the start of its roles.
TEST(Interrupted, a_recording_of_a_run_that_is_stopped_before_it_begins_can_be_replayed) {
  const test::TemporaryDirectory folder;
  const fs::path data = folder.path() / "data", run = folder.path() / "run";
  fs::create_directory(data);
  test::write_small_mnist(data);
  TrainOptions options;
  options.data = "mnist";
  options.data_dir = data.string();
  options.model = "mlp";
  options.width = 16;
  options.batch_size = 8;
  options.schedule = "hogwild";
  options.steps = 10;
  options.record = options.quiet = true;
  options.run_dir = run.string();
  {
    Trainer trainer(make_plan(options), nullptr);
    trainer.request_stop();
    trainer.run();
  }
  const Recording recording = load_recording(run / recording_file);
  EXPECT_EQ(recording.events(), 0);
  EXPECT_EQ(replay(run).steps, 0);
}

}  // namespace train_interrupted_test
}  // namespace rubato
