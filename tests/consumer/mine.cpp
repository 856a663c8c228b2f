// The command `rubato` with the methods of this folder.
#include "level.h"
#include "rubato/rubato.h"

int main(int argc, char** argv) {
  register_level();
  return rubato::run_command_line(argc, argv);
}
