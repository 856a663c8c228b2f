#include <filesystem>
#include <memory>

#include "commands.h"
#include "rubato/launch/launcher.h"

namespace rubato::app {
namespace {

constexpr const char* launch_footer = R"(Examples:
  rubato launch -n 2 -- train --model resnet8 --coupling easgd
  rubato launch -n 8 --hosts hosts.txt --listen 192.168.1.10 -- train --model resnet8 --run-dir runs/a
  rubato launch -n 2 -- train --resume runs/a
  rubato launch --attach runs/a

One more process than workers is started: the coordinator, which holds the centre and the run folder. Each line that a process prints
begins with its name. A process that a signal ends is started again. Ctrl-C: the coordinator writes a checkpoint and the job ends; a
second one ends all processes, a third kills them. When the launcher itself is killed the job goes on: --attach watches it again.

Hosts: lines "HOST [slots=N]". Each must reach this machine at --listen, and have rubato and the working folder at the same paths;
ssh must not ask for a password. --ssh "PROGRAM WORDS" is called as PROGRAM WORDS HOST COMMANDLINE and passes its standard input
on: the job's credentials travel there.)";

}  // namespace

void add_launch(CLI::App& app, Chosen& chosen) {
  auto options = std::make_shared<LaunchOptions>();
  options->ssh = "ssh -o BatchMode=yes";
  CLI::App* command =
      app.add_subcommand("launch", "training by several processes, on this machine or others: rubato launch -n 2 -- train FLAGS");
  command->add_option("-n,--workers", options->workers, "processes that train; the coordinator is one more")
      ->capture_default_str()
      ->check(CLI::Range(1, 65536));
  command->add_option("--hosts", options->hosts_file, "file with lines HOST [slots=N]; default: all on this machine");
  command->add_option("--ssh", options->ssh, "what reaches a host")->capture_default_str();
  command->add_option("--listen", options->listen, "address of this machine at which the workers reach the coordinator")
      ->capture_default_str();
  command->add_option("--port", options->port, "of the coordinator; 0: a free one")
      ->capture_default_str()
      ->check(CLI::Range(0, 65535));
  command->add_option("--restarts", options->restarts, "of each process that a signal ends")
      ->capture_default_str()
      ->check(CLI::Range(0, 1000000));
  command->add_flag("--quiet", options->quiet, "print what the coordinator prints, without prefix, and everybody's errors");
  command->add_option("--attach", options->attach, "run folder of a job that has lost its launcher: watch it again");
  command->add_option("command", options->arguments, "after --: train and its flags");
  command->footer(launch_footer);
  command->callback([=, &chosen] {
    chosen = [=] {
      options->command = this_program();
      if (options->attach.empty()) check_words_of_job(options->arguments, options->workers);
      return launch(*options);
    };
  });
}

}  // namespace rubato::app
