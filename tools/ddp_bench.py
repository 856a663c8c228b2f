#!/usr/bin/env python3
"""rubato's all-reduce against PyTorch's DistributedDataParallel, and two asynchronous processes against one.

usage: tools/ddp_bench.py RUBATO [STEPS] [ROUNDS] [--batch-size 128]

ResNet-8, SGD with momentum, one thread and one core for each process, Gloo on this machine. DDP runs in Python on batches that
lie in memory already and does its first steps unmeasured; rubato reads Fashion-MNIST, and all of its steps count. Rounds are
interleaved. "two alone" are two serial processes at once that share nothing: what the machine allows two of them. Must hold, for the medians of the ratios in samples per second: all-reduce of two processes / DDP of two processes
>= 1, async-easgd of two processes with period 10 / serial in one process >= 1.88.
"""

import argparse
import os
import pathlib
import socket
import statistics
import subprocess
import sys
import tempfile
import time

from rubato_job import Failures, kill_all, leave_on_sigterm, read_json

ROOT = pathlib.Path(__file__).resolve().parent.parent
UNMEASURED = 5  # steps of DDP
FLAGS = ["--model", "resnet8", "--threads-per-role", "1", "--evaluate-every", "-1", "--checkpoint-every", "-1"]
RUNS = {
    "allreduce": (2, ["--coupling", "allreduce"]),
    "serial": (1, []),
    "async-easgd": (2, ["--coupling", "async-easgd", "--period", "10"]),
}

PAIRS = (("allreduce", "ddp"), ("async-easgd", "serial"), ("two alone", "serial"))


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rubato")
    parser.add_argument("steps", nargs="?", type=int, default=400, help="of each process")
    parser.add_argument("rounds", nargs="?", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--python", default="/usr/bin/python3", help="that has torch")
    parser.add_argument("--limit", type=float, default=1200, help="seconds after which a run counts as hanging")
    return parser.parse_args()


def command_of(options, run, method):
    processes, flags = RUNS[method]
    start = [options.rubato, "launch", "-n", str(processes), "--quiet", "--"] if processes > 1 else [options.rubato]
    return [*start, "train", *FLAGS, *flags, "--batch-size", str(options.batch_size), "--steps", str(options.steps),
            "--run-dir", str(run), "--quiet"]


def run_two_alone(options, run):
    """Samples per second of two processes together that know nothing of each other."""
    runs = [run.with_name(f"{run.name}-{number}") for number in (0, 1)]
    children = [subprocess.Popen(command_of(options, each, "serial"), stdin=subprocess.DEVNULL) for each in runs]
    try:
        codes = [child.wait(options.limit) for child in children]
    finally:
        for child in children:
            child.kill()
    if any(codes):
        sys.exit("two serial processes at once failed")
    return sum(read_json(each / "summary.json")["samples_per_second"] for each in runs)


def run_rubato(options, run, method, failures):
    """Samples per second of the whole job."""
    processes = RUNS[method][0]
    command = command_of(options, run, method)
    try:
        done = subprocess.run(command, timeout=options.limit, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    finally:
        kill_all(run)  # those whose launcher was killed because they take too long
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    summary = read_json(run / "summary.json")
    if processes > 1:
        check_counted(summary, read_json(run / "status.json"), method, failures)
    return summary["samples_per_second"]


def check_counted(summary, status, method, failures):
    """The rate is of the samples of all workers."""
    counted = summary["samples_per_second"] * summary["seconds"]
    trained = sum(worker["samples"] for worker in status["workers"])
    failures.check(abs(counted - trained) <= 0.01 * trained, f"{method}: the summary counts {counted:.0f} samples of {trained}")


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def run_ddp(options):
    """Samples per second of two processes, each of which is this script again."""
    common = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2",
              "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    children = [
        subprocess.Popen([options.python, __file__, "--ddp", str(options.steps), str(options.batch_size)], stdout=subprocess.PIPE,
                         text=True, env={**common, "RANK": str(rank)}) for rank in (0, 1)
    ]
    try:
        texts = [child.communicate(timeout=options.limit)[0] for child in children]
    finally:
        for child in children:
            child.kill()
    if any(child.returncode != 0 for child in children):
        sys.exit("the DDP processes failed")
    return 2 * options.batch_size * (options.steps - UNMEASURED) / max(float(text) for text in texts)


def ddp_process(steps, batch):
    """Prints the seconds that the measured steps took."""
    sys.path.insert(0, str(ROOT / "tests/python"))
    import torch
    import torch.distributed
    from compare_with_pytorch import ResNet8

    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    torch.manual_seed(1)
    network = torch.nn.parallel.DistributedDataParallel(ResNet8())
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)  # rubato's defaults
    torch.manual_seed(2 + torch.distributed.get_rank())
    batches = [(torch.randn(batch, 1, 28, 28), torch.randint(10, (batch,))) for _ in range(50)]
    begin = None
    for step in range(steps):
        if step == UNMEASURED:
            torch.distributed.barrier()
            begin = time.monotonic()
        inputs, targets = batches[step % len(batches)]
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(inputs), targets).backward()
        optimizer.step()
    torch.distributed.barrier()
    print(time.monotonic() - begin)


def main():
    if sys.argv[1:2] == ["--ddp"]:
        return ddp_process(int(sys.argv[2]), int(sys.argv[3]))
    options, failures = arguments(), Failures()
    if options.steps <= UNMEASURED:
        sys.exit(f"STEPS must be above {UNMEASURED}")
    leave_on_sigterm()
    rates = {name: [] for name in ("allreduce", "ddp", "serial", "async-easgd", "two alone")}
    print("samples/s   " + "".join(f"{name:>13}" for name in rates) + "".join(f"{a + '/' + b:>20}" for a, b in PAIRS))
    with tempfile.TemporaryDirectory(prefix="rubato-ddp-") as folder:
        for number in range(options.rounds):
            for name, values in rates.items():
                run = pathlib.Path(folder) / f"{name}-{number}"
                values.append(rate_of(options, run, name, failures))
            print_row(f"round {number + 1}", {name: values[-1] for name, values in rates.items()})
    ratios = {pair: statistics.median(a / b for a, b in zip(rates[pair[0]], rates[pair[1]])) for pair in PAIRS}
    medians = {name: statistics.median(values) for name, values in rates.items()}
    print("median      " + "".join(f"{rate:13.0f}" for rate in medians.values()) + "".join(f"{r:20.3f}" for r in ratios.values()))
    failures.check(ratios["allreduce", "ddp"] >= 1, "all-reduce is slower than DDP")
    failures.check(ratios["async-easgd", "serial"] >= 1.88,
                   "two asynchronous processes are less than 1.88 times as fast as one; two that share nothing are "
                   f"{ratios['two alone', 'serial']:.3f} times as fast")
    failures.leave()


def rate_of(options, run, name, failures):
    if name == "ddp":
        return run_ddp(options)
    return run_two_alone(options, run) if name == "two alone" else run_rubato(options, run, name, failures)


def print_row(name, rates):
    print(f"{name:12}" + "".join(f"{rate:13.0f}" for rate in rates.values()) +
          "".join(f"{rates[a] / rates[b]:20.3f}" for a, b in PAIRS), flush=True)


if __name__ == "__main__":
    main()
