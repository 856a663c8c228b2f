#!/usr/bin/env bash
# cmake/torch.cmake against a wheel, then another, in one build folder: switch.sh FOLDER_OF_A_WHEELS_TORCH
set -uo pipefail
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
first=$1
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
failed=0

report() { # STATUS NAME
  if [ "$1" -eq 0 ]; then echo "ok - $2"; else
    echo "not ok - $2"
    cat "$scratch/out"
    failed=1
  fi
}

# Another wheel of another version, in a folder whose name means something to regular expressions.
second=$scratch/c++/torch
mkdir -p "$second"
ln -s "$first/lib" "$second/lib"
ln -s "$first/include" "$second/include"
cp -rL "$first/share" "$second/share"
sed -i 's/^set(PACKAGE_VERSION "[^"]*")/set(PACKAGE_VERSION "9.8.7")/' "$second/share/cmake/Torch/TorchConfigVersion.cmake"

cat >"$scratch/CMakeLists.txt" <<TEXT
cmake_minimum_required(VERSION 3.25)
project(switch LANGUAGES CXX)
set(RUBATO_TORCH "" CACHE PATH "")
include($repository/cmake/torch.cmake)
message(STATUS "version \${RUBATO_TORCH_VERSION} libraries \${TORCH_LIBRARY} headers \${TORCH_INCLUDE_DIRS}")
TEXT
configure() { cmake -G Ninja -S "$scratch" -B "$scratch/build" "$@" >"$scratch/out" 2>&1; }
aten_of() { readlink "$scratch/build/torch_include/ATen"; }
taken() { # FOLDER
  grep -q "libraries $1/lib/libtorch.so" "$scratch/out" && [ "$(aten_of)" = "$1/include/ATen" ]
}

configure -DRUBATO_TORCH="$first" && taken "$first"
report $? "a wheel's libraries and headers are taken"
[ ! -e "$scratch/build/torch_include/google" ] && [ ! -e "$scratch/build/torch_include/fmt" ]
report $? "but not the headers of fmt and protobuf in it"
configure -DRUBATO_TORCH="$second" && taken "$second" && grep -q 'version 9.8.7' "$scratch/out"
report $? "another wheel in the same folder takes over whole"
configure --fresh -DRUBATO_TORCH="$first" && taken "$first"
report $? "and back"
! configure --fresh -DRUBATO_TORCH= -DCMAKE_PREFIX_PATH="$first" && grep -q -- "-DRUBATO_TORCH=" "$scratch/out"
report $? "a wheel on CMAKE_PREFIX_PATH is refused, with the way out"
exit $failed
