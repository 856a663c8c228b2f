#!/bin/sh
# rubato under torchrun (https://pytorch.org/docs/stable/elastic/run.html), which starts and watches the workers.
# Once on each node, with the same arguments:  NODES=2 FIRST=node1 ./torchrun.sh
set -eu
nodes=${NODES:-1}
first=${FIRST:-127.0.0.1}
run=${RUN:-runs/torchrun}

# The same file on every node: on a shared file system, or copied there. Make it once: rubato keys job.keys
export RUBATO_KEYS="${RUBATO_KEYS:-$PWD/job.keys}"
[ -e "$RUBATO_KEYS" ] || { echo "no $RUBATO_KEYS: make it with rubato keys $RUBATO_KEYS" >&2; exit 2; }

# torchrun sets RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT. The coordinator runs beside rank 0; where torchrun itself
# listens at MASTER_PORT (it says so in TORCHELASTIC_USE_AGENT_STORE) the coordinator takes the port after it.
# --no-python: rubato is a program, not a Python script.
exec torchrun --nnodes "$nodes" --nproc-per-node "${WORKERS:-2}" \
  --rdzv-backend c10d --rdzv-endpoint "$first:29400" --rdzv-id rubato --no-python \
  rubato train --model resnet8 --coupling easgd --epochs 8 --run-dir "$run"
