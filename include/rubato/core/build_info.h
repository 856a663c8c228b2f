#pragma once

#include <string>

namespace rubato {

/// What this rubato is, fixed when it was built.
struct BuildInfo {
  const char* version;   ///< of rubato, "0.1.0"
  const char* libtorch;  ///< version of the libtorch it was compiled against, "2.13.0"
  const char* compiler;  ///< "g++ 12.2.0"
  const char* type;      ///< CMake's build type and sanitizers, "Release"
  const char* platform;  ///< "Debian GNU/Linux 12 (bookworm), x86_64"
  const char* commit;    ///< of the sources that were configured; empty where they are no git checkout
};
const BuildInfo& build_info();

/// The machine that runs this: "AMD EPYC 7763, 2 processors". Parts that cannot be found out are left out.
std::string machine_info();

/// The same with its name and system: "name, Debian GNU/Linux 12 (bookworm), AMD EPYC 7763, 2 processors".
std::string host_info();

/// `text` with a question mark for every byte that is no printable ASCII character: for what comes from outside and goes into
/// lines of other files.
std::string printable(std::string text);

/// build_info() and host_info(), a line each (the last without its end), as `rubato --version` prints them. Each line begins with
/// `prefix`.
std::string version_text(const std::string& prefix = "");

}  // namespace rubato
