#!/usr/bin/env bash
# What a finished build must be: settled.sh BUILD_TREE
set -uo pipefail
failed=0

report() { # STATUS NAME
  if [ "$1" -eq 0 ]; then echo "ok - $2"; else
    echo "not ok - $2"
    failed=1
  fi
}

# CMake's second and third run once moved an include folder from one variable to another, and 73 files were compiled again.
nothing_left() {
  cmake "$1" >/dev/null && cmake "$1" >/dev/null && ninja -C "$1" | tail -n 1 | grep -q 'no work to do'
}
compile_commands_of() { grep -E '^  (FLAGS|INCLUDES|DEFINES) = ' "$1/build.ninja"; }

# In a place of its own, since only the first two runs may differ.
same_commands() {
  local scratch result=0
  scratch=$(mktemp -d)
  cmake --preset release -S "$2" -B "$scratch" -DRUBATO_TORCH="$(sed -n 's/^RUBATO_TORCH:[A-Z]*=//p' "$1/CMakeCache.txt")" >/dev/null 2>&1 &&
    compile_commands_of "$scratch" >"$scratch/first" && cmake "$scratch" >/dev/null 2>&1 &&
    compile_commands_of "$scratch" | cmp -s - "$scratch/first" || result=1
  rm -rf "$scratch"
  return $result
}
same_commands "$1" "$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
report $? "the second run of CMake changes no command"
nothing_left "$1"
report $? "configuring a finished build again leaves nothing to compile"

# libtorch may contain another version of protobuf; a symbol of ours that it could find would be taken for its own. Debian's libtorch
# loads Debian's protobuf, which is the version that we are built with.
ldd "$1/rubato" | grep -q libprotobuf || ! nm -D --defined-only --demangle "$1/rubato" | grep -q ' google::protobuf'
report $? "the command exports no protobuf of another version than libtorch's"

# Rooms without libtorch are tested without it.
! ldd "$1/tests/rubato_light_tests" | grep -q libtorch
report $? "tests of rooms that do not know libtorch run without it"

exit $failed
