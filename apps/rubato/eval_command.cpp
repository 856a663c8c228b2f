#include <fmt/format.h>

#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "commands.h"
#include "option_flags.h"
#include "rubato/checkpoint/checkpoint.h"
#include "rubato/core/error.h"
#include "rubato/io/files.h"
#include "rubato/job/plan.h"
#include "rubato/observe/evaluate.h"

namespace fs = std::filesystem;

namespace rubato::app {
namespace {

/// The configuration that lies beside the weights, or in the run folder above them; empty if there is none.
std::string nearby_config(const fs::path& weights) {
  for (fs::path folder = fs::absolute(weights).parent_path(); folder != folder.parent_path(); folder = folder.parent_path()) {
    if (fs::exists(folder / "config.toml")) return (folder / "config.toml").string();
    if (folder.filename() != "checkpoint" && !CheckpointFolder::is_name(folder.filename())) break;
  }
  return "";
}

int evaluate_checkpoint(const CLI::App& command, const std::string& checkpoint, const TrainOptions& flags,
                        const std::string& config_file) {
  std::vector<std::string> rejected;
  const fs::path weights = find_weights(checkpoint, &rejected);
  for (const std::string& reason : rejected) fmt::print(stderr, "rubato: passed over a damaged checkpoint: {}\n", reason);
  TrainOptions options = given_options(command, flags, config_file.empty() ? nearby_config(weights) : config_file);
  options = with_coupling(with_schedule(std::move(options), "serial"), "none");  // evaluation needs no stages and replicas
  options.resume.clear();
  options.init_from = weights.string();
  options.steps = 0;
  options.json = flags.json;  // how the run talked says nothing about how this command should
  Plan plan = make_plan(options);
  load_weights(weights, plan.model);
  const WeightStore store(plan.model, plan.store);
  const Evaluation test = evaluate(plan.model, store, plan.data->test, plan.stage);
  if (options.json) {
    nlohmann::ordered_json json = {{"weights", weights.string()}, {"test_accuracy", nullptr}};
    if (test.accuracy) json["test_accuracy"] = *test.accuracy;
    json["test_loss"] = test.loss;
    json["weights_digest"] = store.digest();
    fmt::print("{}\n", json.dump(2));
  } else {
    fmt::print("{}: {}test loss {:.4f} on {}\n", weights.string(),
               test.accuracy ? fmt::format("test accuracy {:.2f}%, ", *test.accuracy) : "", test.loss, plan.data->test.name);
  }
  return 0;
}

}  // namespace

void add_eval(CLI::App& app, Chosen& chosen) {
  struct Arguments {
    TrainOptions flags;
    std::string checkpoint, config_file;
  };
  auto arguments = std::make_shared<Arguments>();
  CLI::App* command = app.add_subcommand("eval", "accuracy of saved weights on the test split");
  command->add_option("--checkpoint", arguments->checkpoint, "a run folder, a checkpoint, or a .pt file of named tensors")
      ->required();
  add_option_flags(*command, arguments->flags, arguments->config_file,
                   {"data", "data-dir", "sequence-length", "model", "width", "precision", "memory-format", "device", "json"});
  command->callback([=, &chosen] {
    chosen = [=] { return evaluate_checkpoint(*command, arguments->checkpoint, arguments->flags, arguments->config_file); };
  });
}

}  // namespace rubato::app
