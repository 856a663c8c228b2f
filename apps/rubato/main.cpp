#include "allocator/allocator.h"
#include "rubato/app/command_line.h"

int main(int argc, char** argv) {
  return rubato::run_command_line(argc, argv, rubato::give_memory_back);
}
