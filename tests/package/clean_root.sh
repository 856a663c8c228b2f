#!/usr/bin/env bash
# Installs the .deb in a bare Debian of the release that it was made for, and uses it there: clean_root.sh bookworm|trixie [PACKAGE]
# Without PACKAGE it is the one that `./dev package` made inside that Debian. Needs root and the network; prints a line for each check.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
suite=${1:?"usage: clean_root.sh bookworm|trixie [PACKAGE]"}
package=${2:-/dev/null}

# What runs inside. The package comes on standard input; nothing of a checkout is used.
# shellcheck disable=SC2016
checks='
set -eu
cat >/tmp/given.deb
if [ -s /tmp/given.deb ]; then mv /tmp/given.deb /tmp/rubato.deb; else cp build/package/rubato_*.deb /tmp/rubato.deb; fi
cd /
ok() { echo "ok - $1"; }
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq /tmp/rubato.deb >/tmp/install.log 2>&1 || { tail -5 /tmp/install.log; echo "not ok - the package installs in a bare system"; exit 1; }
ok "the package installs in a bare system"
rubato --version
! ldd /usr/bin/rubato | grep "not found"
ok "all its libraries are there"
rubato train --model mlp --steps 60 --batch-size 32 --lr 0.05 --schedule ddg --stages 2 --run-dir /tmp/threads --quiet
rubato eval --checkpoint /tmp/threads
rubato simulate --platform uniform:2 --model mlp --steps 60 --batch-size 32 --lr 0.05 --schedule ddg --stages 2 --run-dir /tmp/simulated --quiet
test "$(grep weights_digest /tmp/threads/summary.json)" = "$(grep weights_digest /tmp/simulated/summary.json)"
ok "ddg trains the same weights on threads and in the simulator"
rubato launch -n 2 --quiet -- train --model mlp --steps 60 --batch-size 32 --lr 0.05 --coupling allreduce --run-dir /tmp/processes
grep -q "\"status\": \"done\"" /tmp/processes/summary.json
ok "two processes train with allreduce"
apt-get remove -y -qq rubato >/dev/null 2>&1
test ! -e /usr/bin/rubato
ok "it can be removed"
'
exec tools/debian_root.sh "$suite" --pristine sh -c "$checks" <"$package"
