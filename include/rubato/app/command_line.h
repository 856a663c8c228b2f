#pragma once

namespace rubato {

/// The command `rubato`, whole: a program that registers methods of its own in `main` (or by static objects) and then returns
/// what this returns is `rubato` with these methods; `launch` starts that same program as its processes.
///
/// Returns the exit code; processes of a job end inside. What goes wrong is printed as one sentence on standard error. Called
/// once, before any thread is started and any tensor made. `give_memory_back`, where given, is called before a simulation, whose
/// need of memory changes by gigabytes: whoever has an allocator that keeps what is freed can tell it not to.
int run_command_line(int argc, char** argv, void (*give_memory_back)() = nullptr);

}  // namespace rubato
