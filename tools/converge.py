#!/usr/bin/env python3
"""Accuracy of every method on the same work: the tables of docs/converging.md.

usage: tools/converge.py FOLDER [--set schedules|couplings|others] [--methods a,b] [--seeds 1,2,3] [--rubato PATH] [--table] [-- flags]

Each run lies in FOLDER/<method>-<seed>; runs that are done are not repeated. One that was stopped half-way is named and
left alone. Flags after `--` come last and therefore override the standard ones. --table trains nothing and prints what is there.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys

STANDARD = ["--model", "resnet8", "--precision", "bf16"]
FOUR = ["--replicas", "4", "--sampling", "whole", "--epochs", "4", "--warmup-epochs", "0.5"]
# The learning rate of each: the best of a few at period 16, one seed (docs/converging.md).
TIED = {
    "eamsgd": ["--lr", "0.1", "--momentum", "0.9"],
    "async-easgd": ["--lr", "1", "--momentum", "0"],
    "downpour": ["--lr", "0.2", "--momentum", "0"],
}
# Per set: the reference first, then what is compared with it.
SETS = {
    "schedules": {
        name: ["--epochs", "8", "--warmup-epochs", "1", "--lr", "0.05", "--schedule", *flags]
        for name, flags in {
            "serial": ["serial"],
            "hogwild": ["hogwild", "--workers", "2"],
            "ddg": ["ddg", "--stages", "2"],
            "pd-asgd": ["pd-asgd", "--forward-threads", "1", "--backward-threads", "2"],
        }.items()
    },
    # One pass over the data for each of four replicas. The reference: the same one pass, and four.
    "couplings": {
        "serial": ["--epochs", "1", "--warmup-epochs", "0.125", "--lr", "0.1"],
        "serial-4-passes": ["--epochs", "4", "--warmup-epochs", "0.5", "--lr", "0.1"],
        **{
            f"{name}-{period}": ["--coupling", name, "--period", str(period), *FOUR, *flags]
            for period in (16, 64)
            for name, flags in TIED.items()
        },
    },
    # Everything else, one pass over the data in all.
    "others": {
        name: ["--epochs", "1", "--warmup-epochs", "0.125", *flags]
        for name, flags in {
            "serial": ["--lr", "0.05"],
            "features-replay": ["--lr", "0.05", "--schedule", "features-replay"],
            "fdg": ["--lr", "0.05", "--schedule", "fdg"],
            "dni": ["--lr", "0.05", "--schedule", "dni", "--dni-labels"],
            "gpipe": ["--lr", "0.05", "--schedule", "gpipe"],
            "1f1b": ["--lr", "0.05", "--schedule", "1f1b"],
            "lpp": ["--lr", "0.05", "--schedule", "lpp"],
            "allreduce": ["--lr", "0.05", "--coupling", "allreduce", "--batch-size", "64"],
            "local-sgd": ["--lr", "0.05", "--coupling", "local-sgd"],
            "lap": ["--lr", "0.05", "--coupling", "lap"],
            "easgd": ["--lr", "0.5", "--coupling", "easgd"],
            "adownpour": ["--lr", "0.2", "--coupling", "adownpour"],
            "mvadownpour": ["--lr", "0.2", "--coupling", "mvadownpour"],
            "mdownpour": ["--lr", "0.02", "--coupling", "mdownpour", "--momentum", "0.9"],
            "admm": ["--lr", "0.2", "--coupling", "admm"],
            "asgd": ["--lr", "0.5", "--momentum", "0", "--averaging", "mean"],
            "mvasgd": ["--lr", "0.5", "--momentum", "0", "--averaging", "moving"],
        }.items()
    },
}
ROOT = pathlib.Path(__file__).resolve().parent.parent


def arguments():
    split = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--set", choices=SETS, default="schedules")
    parser.add_argument("--methods", type=lambda text: text.split(","))
    parser.add_argument("--seeds", type=lambda text: text.split(","), default=["1", "2", "3"])
    parser.add_argument("--rubato", default=ROOT / "build/release/rubato")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args(sys.argv[1:split])
    options.overrides = sys.argv[split + 1:]
    options.known = SETS[options.set]
    options.methods = options.methods or list(options.known)
    unknown = set(options.methods) - set(options.known)
    if unknown:
        parser.error(f"unknown method {', '.join(sorted(unknown))}: known are {', '.join(options.known)}")
    return options


def summary_of(run):
    file = run / "summary.json"
    summary = json.loads(file.read_text()) if file.exists() else {}
    return summary if summary.get("status") == "done" else None


def train(options, method, seed):
    run = options.folder / f"{method}-{seed}"
    if summary_of(run) is not None:
        return
    if run.exists():  # another process may be at work in it
        sys.exit(f"{run} holds a run that is not done: finish it with `rubato train --resume {run}`, or remove it")
    subprocess.run([options.rubato, "train", *STANDARD, *options.known[method], "--seed", seed, "--run-dir", str(run), "--quiet",
                    *options.overrides], check=True)


def row(options, method, reference):
    """The table's line of one method and its mean accuracy; None for what has no finished run."""
    runs = [summary_of(options.folder / f"{method}-{seed}") for seed in options.seeds]
    done = [run for run in runs if run is not None]
    if not done:
        return None, None
    mean = statistics.mean(run["test_accuracy"] for run in done)
    each = " | ".join("not done" if run is None else f"{run['test_accuracy']:.2f}" for run in runs)
    stale = statistics.mean(next(iter(run["staleness"].values()))["mean"] for run in done)
    seconds = statistics.mean(run["seconds"] for run in done)
    to_reference = "" if reference is None else f"{mean - reference:+.2f}"
    flags = " ".join([*options.known[method], *options.overrides])
    return f"| {method} | {mean:.2f} | {each} | {to_reference} | {stale:.2f} | {seconds:.0f} | `{flags}` |", mean


def print_table(options):
    reference_name = next(iter(options.known))
    seeds = " | ".join("seed " + seed for seed in options.seeds)
    print(f"`rubato train {' '.join(STANDARD)}` and the flags of the row, test accuracy in percent:\n")
    print(f"| method | mean | {seeds} | to {reference_name} | mean staleness of the first block | seconds | flags |")
    print("| --- " * (len(options.seeds) + 6) + "|")
    _, reference = row(options, reference_name, None)
    for method in options.methods:
        line, _ = row(options, method, reference)
        if line is not None:
            print(line)


def main():
    options = arguments()
    if not options.table:
        for seed in options.seeds:  # seed by seed: an unfinished table still compares like with like
            for method in options.methods:
                train(options, method, seed)
    print_table(options)


if __name__ == "__main__":
    main()
