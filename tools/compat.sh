#!/usr/bin/env bash
# ./dev compat: demo and test on fresh clones of what is committed, in fresh Debian systems, for each libtorch that is tested.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
  cat <<'TEXT'
usage: ./dev compat [--rounds N] [--publish] [--no-package] [CONFIGURATION...]
For each configuration: a Debian as it was installed, a clone of this checkout's HEAD, ./dev demo, ./dev test. Prints a row for each with
the times and the last line, then tries the .deb of both Debians in a bare system.
  debian12-pip      Debian 12, PyTorch from pip (tools/torch_requirement.txt)
  debian12-debian   Debian 12, its libtorch
  debian13-debian   Debian 13, its libtorch
Without names: all three. A round takes about 15 minutes for each on two cores.
  --rounds N        each N times, in turn (default 1)
  --publish         writes the table into docs/compatibility.md as well
  --no-package      leaves the packages out
It needs root and the network, as ./dev debian12 does. Logs: build/compat/CONFIGURATION-ROUND.{demo,test}.log
TEXT
}

rounds=1 publish='' packages=yes configurations=()
while [ $# -gt 0 ]; do
  case "$1" in
    --rounds)
      rounds=${2:?"dev: --rounds needs a number"}
      shift
      ;;
    --publish) publish=yes ;;
    --no-package) packages='' ;;
    --help | -h)
      usage
      exit
      ;;
    debian12-pip | debian12-debian | debian13-debian) configurations+=("$1") ;;
    *)
      echo "dev: compat does not know '$1'" >&2
      usage >&2
      exit 2
      ;;
  esac
  shift
done
[[ "$rounds" =~ ^[1-9][0-9]*$ ]] || {
  echo "dev: --rounds $rounds: a whole number from 1 on" >&2
  exit 2
}
[ ${#configurations[@]} -gt 0 ] || configurations=(debian12-pip debian12-debian debian13-debian)

export RUBATO_ROOTS=${RUBATO_ROOTS:-$PWD/build/roots}
work=$PWD/build/compat
mkdir -p "$work"
table=$work/table.md
status=0

clock() { printf '%d min %02d s' $(($1 / 60)) $(($1 % 60)); }

# Runs ./dev in the clone inside the Debian; the seconds that it took are in $took.
timed() { # LOG SUITE ARGUMENT...
  local log=$1 suite=$2 begin=$SECONDS result=0
  shift 2
  (cd "$clone" && tools/debian_root.sh "$suite" "$@") >"$log" 2>&1 </dev/null || result=$?
  took=$((SECONDS - begin))
  return $result
}

{
  echo "| Debian, libtorch | compiler | \`./dev demo\` | \`./dev test\` | last line of the test | date |"
  echo "| --- | --- | --- | --- | --- | --- |"
} | tee "$table"
for ((round = 1; round <= rounds; ++round)); do
  for name in "${configurations[@]}"; do
    case "$name" in debian12-*) suite=bookworm ;; *) suite=trixie ;; esac
    clone=$work/$name
    rm -rf "$clone"
    git clone -q . "$clone"
    demo_log=$work/$name-$round.demo.log test_log=$work/$name-$round.test.log
    if ! (cd "$clone" && tools/debian_root.sh "$suite" --fresh -- true) >"$work/$name-$round.root.log" 2>&1; then
      echo "dev: $(tail -n 1 "$work/$name-$round.root.log")" >&2
      exit 1
    fi
    timed "$demo_log" "$suite" --torch "${name#*-}" demo || status=1
    demo_took=$took
    timed "$test_log" "$suite" test || status=1
    version=$( (cd "$clone" && tools/debian_root.sh "$suite" -- build/release/rubato --version) 2>/dev/null | tr '\n' ';') || version=
    libtorch=$(sed -n 's/.*libtorch \([^;]*\);.*/\1/p' <<<"$version")
    compiler=$(sed -n 's/.*built with \([^,]*\),.*/\1/p' <<<"$version")
    echo "| Debian ${name:6:2}, ${libtorch:-none} (${name#*-}) | ${compiler:-none} | $(clock $demo_took) | $(clock $took) | $(tail -n 1 "$test_log") | $(date +%F) |" |
      tee -a "$table"
    rm -rf "$clone"
  done
done

if [ -n "$packages" ]; then
  for suite in bookworm trixie; do
    log=$work/package-$suite.log
    if tools/debian_root.sh "$suite" package >"$log" 2>&1 </dev/null && tests/package/clean_root.sh "$suite" >>"$log" 2>&1; then
      echo "package on $suite: $(grep -c '^ok - ' "$log") checks passed"
    else
      echo "package on $suite: FAILED, see $log"
      status=1
    fi
  done
fi

if [ -n "$publish" ]; then
  page=docs/compatibility.md
  awk -v table="$table" '
    /<!-- compat begin -->/ { print; print ""; while ((getline line < table) > 0) print line; print ""; skip = 1 }
    /<!-- compat end -->/ { skip = 0 }
    !skip && !/<!-- compat begin -->/ { print }' "$page" >"$page.new"
  mv "$page.new" "$page"
  echo "written into $page"
fi
exit $status
