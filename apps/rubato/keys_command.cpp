#include <fmt/format.h>

#include <memory>

#include "commands.h"
#include "rubato/transport/credentials.h"

namespace rubato::app {

void add_keys(CLI::App& app, Chosen& chosen) {
  auto file = std::make_shared<std::string>();
  CLI::App* command = app.add_subcommand(
      "keys", "the credentials of a job that srun, torchrun or Kubernetes starts; `rubato launch` makes its own");
  command->add_option("file", *file, "a new file, which only you can read")->required();
  command->footer(
      "Example:\n  rubato keys job.keys\n  RUBATO_KEYS=job.keys srun --ntasks 4 rubato train --model resnet8 --run-dir runs/a");
  command->callback([=, &chosen] {
    chosen = [=] {
      write_credentials(*file, make_credentials());
      fmt::print("{}: every process of the job needs RUBATO_KEYS={} in its environment\n", *file, *file);
      return 0;
    };
  });
}

}  // namespace rubato::app
