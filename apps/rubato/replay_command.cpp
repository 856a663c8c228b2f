#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "commands.h"
#include "rubato/train/replay.h"

namespace rubato::app {

void add_replay(CLI::App& app, Chosen& chosen) {
  struct Arguments {
    std::string run, where = "threads";
    bool json = false;
  };
  auto arguments = std::make_shared<Arguments>();
  CLI::App* command = app.add_subcommand(
      "replay", "a run recorded with `train --record` again, bit for bit: every read, publication and message in the same order");
  command->add_option("run", arguments->run, "its run folder")->required();
  command->add_option("--in", arguments->where, "threads or simulator")
      ->capture_default_str()
      ->check(CLI::IsMember({"threads", "simulator"}));
  command->add_flag("--json", arguments->json, "print the result as JSON");
  command->callback([=, &chosen] {
    chosen = [=] {
      const ReplayResult result = replay(arguments->run, {.simulated = arguments->where == "simulator"});
      if (arguments->json) {
        fmt::print(
            "{}\n",
            nlohmann::ordered_json{{"steps", result.steps}, {"events", result.events}, {"weights_digest", result.weights_digest}}
                .dump(2));
      } else {
        fmt::print("{}: {} steps, {} events, all as recorded; weights_digest {}\n", arguments->run, result.steps, result.events,
                   result.weights_digest);
      }
      return 0;
    };
  });
}

}  // namespace rubato::app
