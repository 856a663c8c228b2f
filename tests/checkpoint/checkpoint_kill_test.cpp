#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <thread>

#include "rubato/checkpoint/checkpoint.h"
#include "rubato/core/random.h"
#include "rubato/zoo/zoo.h"
#include "support/temporary_directory.h"

namespace rubato {
namespace checkpoint_checkpoint_kill_test {

/// A number that is large enough for a kill to fall into its writing.
struct State final : Restorable {
  torch::Tensor content = torch::zeros({1 << 16});
  void save(torch::serialize::OutputArchive& archive) const override { archive.write("content", content); }
  void load(torch::serialize::InputArchive& archive) override { archive.read("content", content); }
};

[[noreturn]] void write_for_ever(const std::filesystem::path& folder, std::int64_t step) {
  torch::set_num_threads(1);
  const Model model = make_model({.model = "mlp", .width = 64});
  const WeightStore store(model, {});
  State state;
  for (;; ++step) {
    state.content.fill_(static_cast<float>(step));
    CheckpointFolder(folder).write({.step = step}, store, state, "# configuration\n");
  }
}

TEST(CheckpointKill, whenever_the_writer_is_killed_there_is_a_loadable_checkpoint) {
  const test::TemporaryDirectory scratch;
  const std::filesystem::path folder = scratch.path() / "checkpoint";
  std::filesystem::create_directory(folder);
  RandomStream random(11, RandomUse::test);
  std::int64_t last = 0;
  int moved_on = 0;
  for (int kills = 0; kills < 200; ++kills) {
    const pid_t child = fork();
    if (child == 0) write_for_ever(folder, last + 1);
    if (kills == 0) {  // the first of all has to be there before anything can be promised
      while (!CheckpointFolder(folder).newest()) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    std::this_thread::sleep_for(std::chrono::microseconds(5000 + random.below(30000)));
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
    const auto found = CheckpointFolder(folder).newest();
    ASSERT_TRUE(found) << "after kill " << kills;
    ASSERT_GE(found->progress.step, last);
    State state;
    CheckpointFolder::load(*found, state);
    ASSERT_TRUE(state.content.eq(static_cast<float>(found->progress.step)).all().item<bool>());
    moved_on += found->progress.step > last ? 1 : 0;
    last = found->progress.step;
  }
  EXPECT_GT(moved_on, 20) << "hardly anything was written between the kills";
}

}  // namespace checkpoint_checkpoint_kill_test
}  // namespace rubato
