#!/usr/bin/env bash
# Installs the build tree into an empty prefix, and builds and runs a project that finds rubato there: check.sh BUILD_TREE
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
fail() {
  echo "not ok - $1"
  exit 1
}
said() { # WHAT TEXT: the last command's output has TEXT
  grep -qF -- "$2" "$scratch/out" || { cat "$scratch/out"; fail "$1"; }
  echo "ok - $1"
}

cmake --install "$1" --prefix "$scratch/prefix" >/dev/null
"$scratch/prefix/bin/rubato" --version >/dev/null
echo "ok - the installed command starts"
headers=$(cd "$scratch/prefix/include" && find . -type f | sort | tr '\n' ' ')
[ "$headers" = "./rubato/extend.h ./rubato/rubato.h " ] || fail "headers are installed besides the two: $headers"
echo "ok - two headers are installed"
! grep -n '#include "' "$scratch/prefix/include/rubato/rubato.h" || fail "rubato.h needs another header"

cmake -S "$here" -B "$scratch/build" -G Ninja -DCMAKE_PREFIX_PATH="$scratch/prefix" >/dev/null
cmake --build "$scratch/build" >"$scratch/out" || { cat "$scratch/out"; fail "the project cannot be built"; }
echo "ok - an installed rubato is found and used by another project"
mkdir "$scratch/runs"
"$scratch/build/consumer" "$scratch/runs"

mine() { "$scratch/build/mine" "$@" >"$scratch/out" 2>&1; }
mine list schedules
said "the list has a schedule of one's own" "accumulate  "
mine train --help
said "so has the help, with its option" "--accumulate INT=4"
mine train --schedule acumulate && fail "a name that is not there was taken"
said "so have errors" "did you mean 'accumulate'?"
mine train --schedule ddg --accumulate 3 && fail "an option of another schedule was taken"
said "its option is for it alone" "--accumulate is for --schedule accumulate, not for ddg: leave it out, or choose accumulate"
printf '[schedule]\nname = "accumulate"\naccumulat = 3\n' >"$scratch/run.toml"
mine train --config "$scratch/run.toml" && fail "an unknown key was taken"
said "files are read with its option" "run.toml:3:1: unknown key 'accumulat': did you mean 'accumulate'?"

run=(train --model level --data points --batch-size 4 --lr-schedule constant --steps 12 --coupling follow --replicas 2 --period 3
  --follow-rate 0.25 --schedule accumulate --accumulate 2 --quiet)
digest() { grep -o '"weights_digest": "[0-9a-f]*"' "$scratch/runs/$1/summary.json"; }
mine "${run[@]}" --run-dir "$scratch/runs/threads" || { cat "$scratch/out"; fail "the command does not train"; }
mine launch -n 2 -- "${run[@]}" --run-dir "$scratch/runs/processes" || { cat "$scratch/out"; fail "processes do not train"; }
[ "$(digest threads)" = "$(digest processes)" ] || fail "threads and processes disagree: $(digest threads), $(digest processes)"
echo "ok - methods of one's own have the same bits on threads and in processes"
if mine simulate --platform uniform:2 "${run[@]:1}" --run-dir "$scratch/runs/simulated"; then
  [ "$(digest threads)" = "$(digest simulated)" ] || fail "threads and simulator disagree: $(digest threads), $(digest simulated)"
  echo "ok - and in virtual time"
else
  said "this build has no simulator, and says so" "without"
fi
