#!/usr/bin/env bash
# What tools/debian_root.sh does before it makes a Debian: help, wrong arguments, the mirror from the host's sources. Needs
# neither root nor the network.
# shellcheck disable=SC2317,SC2329 # functions are called through check
set -uo pipefail
tool=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../tools" && pwd)/debian_root.sh
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
export RUBATO_ROOTS=$scratch/roots
failed=0

check() { # NAME CONDITION...
  local name=$1
  shift
  if "$@"; then
    echo "ok - debian_root: $name"
  else
    echo "not ok - debian_root: $name"
    failed=1
  fi
}

# One sentence on the error output, nothing on the other, exit status 2; the sentence holds the text.
refuses() { # TEXT [ARGUMENT...]
  local text=$1 status=0
  shift
  "$tool" "$@" </dev/null >"$scratch/out" 2>"$scratch/err" || status=$?
  [ "$status" -eq 2 ] && [ ! -s "$scratch/out" ] && grep -qF -- "$text" "$scratch/err" && [ "$(wc -l <"$scratch/err")" -eq 1 ]
}

shows_usage() { # STATUS [ARGUMENT...]: all of it, on the error output if the status is not 0
  local expected=$1 status=0
  shift
  "$tool" "$@" </dev/null >"$scratch/out" 2>"$scratch/err" || status=$?
  [ "$status" -eq "$expected" ] || return 1
  if [ "$status" -ne 0 ]; then mv "$scratch/err" "$scratch/out"; fi
  grep -q '^usage: ' "$scratch/out" && grep -q -- '--pristine' "$scratch/out" && grep -q RUBATO_MIRROR "$scratch/out"
}

mirrors_are() { # EXPECTED: from the apt configuration in $scratch/apt.conf, for trixie
  # shellcheck disable=SC2016
  [ "$(APT_CONFIG=$scratch/apt.conf bash -c 'source "$1"; host_mirrors trixie' - "$tool")" = "$1" ]
}

check "--help" shows_usage 0 --help
check "--help after the release" shows_usage 0 trixie --help
check "no arguments: usage" shows_usage 2
check "no command and no terminal: usage" shows_usage 2 bookworm
check "--pristine, no command and no terminal: usage" shows_usage 2 bookworm --pristine
check "an unknown release" refuses "'sid'" sid test
check "an unknown option" refuses "'--wrong'" trixie --wrong test
check "-- without a program" refuses "a program must follow" trixie --
check "nothing was made" test ! -e "$RUBATO_ROOTS"

if command -v apt-get >/dev/null; then
  mkdir -p "$scratch/parts" "$scratch/lists/partial"
  cat >"$scratch/apt.conf" <<TEXT
Dir::Etc::sourcelist "$scratch/sources.list";
Dir::Etc::sourceparts "$scratch/parts";
Dir::State::lists "$scratch/lists";
TEXT

  # A third party's suite has the same name.
  cat >"$scratch/sources.list" <<TEXT
deb http://other.example/things/ bookworm main
# deb http://old.example/debian bookworm main
deb [trusted=yes] http://mirror.example/debian/ bookworm main contrib
TEXT
  check "mirror from sources.list" mirrors_are "deb http://mirror.example/debian trixie main"

  : >"$scratch/sources.list"
  cat >"$scratch/parts/debian.sources" <<TEXT
Types: deb
URIs: http://mirror.example/archive
Suites: bookworm bookworm-updates
Components: main

Types: deb
URIs: http://mirror.example/security/
Suites: bookworm-security
Components: main
TEXT
  check "mirror, updates and security from a .sources file" mirrors_are "deb http://mirror.example/archive trixie main
deb http://mirror.example/archive trixie-updates main
deb http://mirror.example/security trixie-security main"

  rm "$scratch/parts/debian.sources"
  echo "deb http://other.example/ubuntu noble main" >"$scratch/sources.list"
  check "no Debian in the sources: debootstrap's own mirror" mirrors_are ""
fi
exit "$failed"
