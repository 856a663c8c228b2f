#!/usr/bin/env python3
"""Accuracy of every schedule on the same work: the table of docs/converging.md.

usage: tools/converge.py FOLDER [--schedules a,b] [--seeds 1,2,3] [--epochs 8] [--rubato PATH] [--table] [-- flags]

Each run lies in FOLDER/<schedule>-<seed>; runs that are done are not repeated. One that was stopped half-way is named and
left alone.
Flags after `--` come last and therefore override the standard ones. --table trains nothing and prints what is there.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys

STANDARD = ["--model", "resnet8", "--precision", "bf16", "--lr", "0.05", "--warmup-epochs", "1"]
SCHEDULES = {
    "serial": [],
    "hogwild": ["--workers", "2"],
    "ddg": ["--stages", "2"],
    "pd-asgd": ["--forward-threads", "1", "--backward-threads", "2"],
}
ROOT = pathlib.Path(__file__).resolve().parent.parent


def arguments():
    split = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--schedules", type=lambda text: text.split(","), default=list(SCHEDULES))
    parser.add_argument("--seeds", type=lambda text: text.split(","), default=["1", "2", "3"])
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--rubato", default=ROOT / "build/release/rubato")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args(sys.argv[1:split])
    options.flags = [*STANDARD, "--epochs", str(options.epochs), *sys.argv[split + 1:]]
    unknown = set(options.schedules) - set(SCHEDULES)
    if unknown:
        parser.error(f"unknown schedule {', '.join(sorted(unknown))}: known are {', '.join(SCHEDULES)}")
    return options


def summary_of(run):
    file = run / "summary.json"
    summary = json.loads(file.read_text()) if file.exists() else {}
    return summary if summary.get("status") == "done" else None


def train(options, schedule, seed):
    run = options.folder / f"{schedule}-{seed}"
    if summary_of(run) is not None:
        return
    if run.exists():  # another process may be at work in it
        sys.exit(f"{run} holds a run that is not done: finish it with `rubato train --resume {run}`, or remove it")
    subprocess.run([options.rubato, "train", "--schedule", schedule, *SCHEDULES[schedule], "--seed", seed,
                    "--run-dir", str(run), "--quiet", *options.flags], check=True)


def row(options, schedule, reference):
    """The table's line of one schedule and its mean accuracy; None for what has no finished run."""
    runs = [summary_of(options.folder / f"{schedule}-{seed}") for seed in options.seeds]
    done = [run for run in runs if run is not None]
    if not done:
        return None, None
    mean = statistics.mean(run["test_accuracy"] for run in done)
    each = " | ".join("not done" if run is None else f"{run['test_accuracy']:.2f}" for run in runs)
    stale = statistics.mean(next(iter(run["staleness"].values()))["mean"] for run in done)
    seconds = statistics.mean(run["seconds"] for run in done)
    to_serial = "" if reference is None else f"{mean - reference:+.2f}"
    return f"| {schedule} | {mean:.2f} | {each} | {to_serial} | {stale:.2f} | {seconds:.0f} |", mean


def print_table(options):
    seeds = " | ".join("seed " + seed for seed in options.seeds)
    print(f"`rubato train {' '.join(options.flags)}`, test accuracy in percent:\n")
    print(f"| schedule | mean | {seeds} | to serial | mean staleness of the first block | seconds |")
    print("| --- " * (len(options.seeds) + 5) + "|")
    _, reference = row(options, "serial", None)
    for schedule in options.schedules:
        line, _ = row(options, schedule, reference)
        if line is not None:
            print(line)


def main():
    options = arguments()
    if not options.table:
        for seed in options.seeds:  # seed by seed: an unfinished table still compares like with like
            for schedule in options.schedules:
                train(options, schedule, seed)
    print_table(options)


if __name__ == "__main__":
    main()
