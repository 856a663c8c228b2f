#!/usr/bin/env python3
"""The same asynchronous training on threads, in processes and in virtual time: is the accuracy the same?

usage: tools/accuracy_bench.py RUBATO [SEEDS] [EPOCHS] [--couplings a,b] [--workers N]

These runs are no copies of each other: who exchanges with the centre when is another story each time. So it is means over seeds
that are compared, each with those on threads. Must hold: the means differ by no more than 2.5 standard errors of their
difference (Welch), and by no more than one point whatever the seeds' spread. Model mlp on Fashion-MNIST.

By default as many workers as processors. More of them take turns, in an order that threads, the operating system and the simulator
choose differently; downpour, which adds up what all have done meanwhile, is sensitive to that.
"""

import argparse
import math
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

from rubato_job import Failures, kill_all, leave_on_sigterm, read_json

FLAGS = ["--model", "mlp", "--lr", "0.05", "--period", "8", "--evaluate-every", "-1", "--checkpoint-every", "-1", "--quiet"]
KINDS = ("threads", "processes", "simulator")
STANDARD_ERRORS, POINTS = 2.5, 1.0


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rubato")
    parser.add_argument("seeds", nargs="?", type=int, default=5)
    parser.add_argument("epochs", nargs="?", type=int, default=4)
    parser.add_argument("--couplings", type=lambda text: text.split(","), default=["async-easgd", "eamsgd", "downpour", "lap"])
    parser.add_argument("--workers", type=int, default=max(2, os.cpu_count() or 2))
    parser.add_argument("--limit", type=float, default=600, help="seconds after which a run counts as hanging")
    return parser.parse_args()


def command_of(options, kind, coupling, seed, run):
    flags = [*FLAGS, "--coupling", coupling, "--replicas", str(options.workers), "--epochs", str(options.epochs),
             "--seed", str(seed), "--run-dir", str(run)]
    if coupling == "lap":
        flags[flags.index("--period"):flags.index("--period") + 2] = []  # it averages all the time
    if kind == "processes":
        return [options.rubato, "launch", "-n", str(options.workers), "--quiet", "--", "train", *flags]
    if kind == "simulator":
        return [options.rubato, "simulate", "--platform", f"uniform:{options.workers + 1}", *flags]
    return [options.rubato, "train", *flags]


def accuracy(options, kind, coupling, seed, run):
    command = command_of(options, kind, coupling, seed, run)
    try:
        done = subprocess.run(command, timeout=options.limit, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    finally:
        kill_all(run)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return read_json(run / "summary.json")["test_accuracy"]


def standard_error(one, other):
    return math.sqrt(statistics.variance(one) / len(one) + statistics.variance(other) / len(other))


def compare(coupling, kind, reference, values, failures):
    difference = statistics.mean(values) - statistics.mean(reference)
    error = standard_error(reference, values)
    failures.check(abs(difference) <= min(POINTS, STANDARD_ERRORS * error) or abs(difference) < 0.05,
                   f"{coupling}: {kind} differ from threads by {difference:+.2f} points, standard error {error:.2f}")
    return f"{difference:+.2f} ± {error:.2f}"


def main():
    options, failures = arguments(), Failures()
    if options.seeds < 2:
        sys.exit("SEEDS must be at least 2")
    leave_on_sigterm()
    print(f"test accuracy in percent, {options.workers} workers, {options.epochs} epochs, {options.seeds} seeds: mean ± deviation")
    print(f"{'':14}" + "".join(f"{kind:>16}" for kind in KINDS) + "".join(f"{kind + ' - threads':>24}" for kind in KINDS[1:]))
    with tempfile.TemporaryDirectory(prefix="rubato-accuracy-") as folder:
        for coupling in options.couplings:
            found = {kind: [accuracy(options, kind, coupling, seed, pathlib.Path(folder) / f"{coupling}-{kind}-{seed}")
                            for seed in range(1, options.seeds + 1)] for kind in KINDS}
            columns = [f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f}" for values in found.values()]
            differences = [compare(coupling, kind, found["threads"], found[kind], failures) for kind in KINDS[1:]]
            print(f"{coupling:14}" + "".join(f"{text:>16}" for text in columns) + "".join(f"{text:>24}" for text in differences),
                  flush=True)
    failures.leave()


if __name__ == "__main__":
    main()
