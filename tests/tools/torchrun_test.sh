#!/usr/bin/env bash
# examples/launch/torchrun.sh under the torchrun of a Python: torchrun_test.sh PYTHON
# A stand-in for rubato says what it was started with.
set -uo pipefail
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
python=$1
"$python" -c 'import torch.distributed.run' 2>/dev/null || {
  echo "skipped: $python has no torchrun"
  exit 77
}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir "$scratch/bin"
printf '#!/bin/sh\nexec "%s" -m torch.distributed.run "$@"\n' "$python" >"$scratch/bin/torchrun"
# shellcheck disable=SC2016 # for the script that is written
printf '#!/bin/sh\necho "$WORLD_SIZE $MASTER_ADDR $*" >"%s/said.$RANK"\n' "$scratch" >"$scratch/bin/rubato"
chmod +x "$scratch/bin/torchrun" "$scratch/bin/rubato"
touch "$scratch/job.keys"
port=$("$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
failed=0
report() { # STATUS NAME
  if [ "$1" -eq 0 ]; then echo "ok - $2"; else
    echo "not ok - $2"
    cat "$scratch/out"
    failed=1
  fi
}

cd "$scratch" && PATH=$scratch/bin:$PATH PORT=$port WORKERS=2 RUN=here timeout 120 sh "$repository/examples/launch/torchrun.sh" >"$scratch/out" 2>&1
report $? "torchrun knows every option of the example"
[ "$(cat "$scratch"/said.* 2>/dev/null | grep -c '^2 [^ ]* train --model resnet8 --coupling easgd .*--run-dir here$')" -eq 2 ]
report $? "and starts two workers that know of each other"
rm -f job.keys
PATH=$scratch/bin:$PATH sh "$repository/examples/launch/torchrun.sh" 2>"$scratch/out"
[ $? -eq 2 ] && grep -q "make it with rubato keys" "$scratch/out"
report $? "without a key file the example says how to make one"
exit $failed
