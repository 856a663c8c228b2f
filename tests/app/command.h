#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "support/small_mnist.h"

namespace rubato::test {

/// How a run of the command ended.
struct Outcome {
  int exit_code = -1;  ///< 128 + signal when a signal ended it
  std::string out, err;
};

/// Limits and disturbances of one run.
struct Conditions {
  long file_size_limit = -1;  ///< bytes a file may have (RLIMIT_FSIZE); -1: none
  int signal = 0;             ///< sent once `signal_when` exists; 0: none
  std::filesystem::path signal_when;
  std::chrono::milliseconds signal_after{0};       ///< after that moment
  int signals = 1;                                 ///< how many, 50 ms apart
  bool nobody = false;                             ///< as a user without rights, where this is the superuser
  bool without_folder = false;                     ///< in a working folder that has been removed
  int process_limit = -1;                          ///< processes and threads of that user (RLIMIT_NPROC); -1: none
  std::int64_t memory_limit = -1;                  ///< bytes of addresses (RLIMIT_AS); -1: none
  std::map<std::string, std::string> environment;  ///< besides what is inherited
};

/// Runs the built `rubato` with `arguments`; kills it after two minutes.
Outcome rubato_command(const std::vector<std::string>& arguments, const Conditions& conditions = {});

/// "x" of `"key": "x"` or `"key": x` in JSON text; empty if there is none.
std::string json_value(const std::string& json, const std::string& key);

std::string content_of(const std::filesystem::path& file);

/// Flags of a run that takes well under a second on that data set.
std::vector<std::string> small_run(const std::filesystem::path& data, const std::filesystem::path& run,
                                   const std::vector<std::string>& more = {});

}  // namespace rubato::test
