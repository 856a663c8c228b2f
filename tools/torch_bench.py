#!/usr/bin/env python3
"""One libtorch against another: the same training with commands that differ in their libtorch alone.

usage: tools/torch_bench.py COMMAND COMMAND [--rounds 5] [--seconds 6]

Each COMMAND is a built `rubato`. For each model and schedule, runs of both take turns; the table has the medians of their samples per
second and of the ratios within a round. Runs are warmed up by one that does not count, which also finds how many steps take --seconds.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile

CASES = [
    ("mlp", "fashion-mnist", ["--batch-size", "64"]),
    ("lenet", "fashion-mnist", ["--batch-size", "64"]),
    ("resnet8", "fashion-mnist", ["--batch-size", "128"]),
    ("lstm-char", "text", ["--batch-size", "32"]),
    ("transformer-char", "text", ["--batch-size", "32"]),
]
SCHEDULES = {"serial": [], "ddg, 2 stages": ["--schedule", "ddg", "--stages", "2"]}
BF16 = ("resnet8", "fashion-mnist", ["--batch-size", "128", "--precision", "bf16"])


def speed(command, folder, model, data, flags, steps):
    """Samples per second."""
    run = pathlib.Path(folder) / "run"
    subprocess.run(["rm", "-rf", str(run)], check=True)
    subprocess.run(
        [command, "train", "--model", model, "--data", data, *flags, "--steps", str(steps), "--evaluate-every", "-1",
         "--checkpoint-every", "-1", "--lr", "0.01", "--quiet", "--run-dir", str(run)], check=True)
    return json.loads((run / "summary.json").read_text())["samples_per_second"]


def libtorch_of(command):
    version = subprocess.run([command, "--version"], check=True, capture_output=True, text=True).stdout
    return next(line for line in version.splitlines() if line.startswith("libtorch "))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commands", nargs=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6, help="of each run")
    options = parser.parse_args()
    names = [libtorch_of(command) for command in options.commands]
    print(f"| model, schedule | {names[0]}, samples/s | {names[1]}, samples/s | ratio |\n| --- | --- | --- | --- |")
    cases = [(model, data, name, [*flags, *more]) for model, data, flags in CASES for name, more in SCHEDULES.items()]
    cases.append((BF16[0], BF16[1], "serial, bf16", BF16[2]))
    with tempfile.TemporaryDirectory() as folder:
        for model, data, name, flags in cases:
            batch = int(flags[flags.index("--batch-size") + 1])
            first = speed(options.commands[0], folder, model, data, flags, 10)
            steps = max(10, int(first * options.seconds / batch))
            speeds = [[], []]
            for turn in range(options.rounds):
                for which in (0, 1) if turn % 2 == 0 else (1, 0):
                    speeds[which].append(speed(options.commands[which], folder, model, data, flags, steps))
            ratio = statistics.median(b / a for a, b in zip(*speeds))
            print(f"| {model}, {name} | {statistics.median(speeds[0]):.0f} | {statistics.median(speeds[1]):.0f} | {ratio:.2f}x |",
                  flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
