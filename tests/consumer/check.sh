#!/usr/bin/env bash
# Installs the build tree into an empty prefix and builds a project that finds rubato there: check.sh BUILD_TREE
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cmake --install "$1" --prefix "$scratch/prefix" >/dev/null
cmake -S "$here" -B "$scratch/build" -G Ninja -DCMAKE_PREFIX_PATH="$scratch/prefix" >/dev/null
cmake --build "$scratch/build" >/dev/null
"$scratch/build/consumer" | grep -qx ddg
"$scratch/prefix/bin/rubato" --version >/dev/null
echo "ok - the installed command starts"
echo "ok - an installed rubato is found and used by another project"
