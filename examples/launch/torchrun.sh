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
# --no_python: rubato is a program, not a Python script. Before 2.0 torchrun knew its options with underscores alone.
# --redirects, --tee: what the workers print comes here, with their numbers, and goes into files. Debian 12's torchrun fails without.
exec torchrun --nnodes "$nodes" --nproc_per_node "${WORKERS:-2}" \
  --rdzv_backend c10d --rdzv_endpoint "$first:${PORT:-29400}" --rdzv_id rubato --no_python --redirects 1 --tee 1 \
  rubato train --model resnet8 --coupling easgd --epochs 8 --run-dir "$run"
