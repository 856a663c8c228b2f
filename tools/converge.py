#!/usr/bin/env python3
"""Accuracy of every schedule on the same work: the table of docs/converging.md.

usage: tools/converge.py FOLDER [--schedules a,b] [--seeds 1,2,3] [--epochs 8] [--rubato PATH] [-- further flags of train]

Each run lies in FOLDER/<schedule>-<seed>; runs that are done are not repeated, so the command may be stopped and started again.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys


def arguments():
    own, _, further = " ".join(sys.argv[1:]).partition(" -- ")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--schedules", default="serial,hogwild,ddg,pd-asgd")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--epochs", default="8")
    parser.add_argument("--rubato", default="build/release/rubato")
    options = parser.parse_args(own.split())
    defaults = "--precision bf16 --lr 0.05 --warmup-epochs 1"
    options.flags = ["--model", "resnet8", "--epochs", options.epochs] + (further or defaults).split()
    return options


def summary_of(run):
    file = run / "summary.json"
    summary = json.loads(file.read_text()) if file.exists() else {}
    return summary if summary.get("status") == "done" else None


def run_all(options):
    for seed in options.seeds.split(","):
        for schedule in options.schedules.split(","):
            run = options.folder / f"{schedule}-{seed}"
            if summary_of(run) is None:
                subprocess.run([options.rubato, "train", "--schedule", schedule, "--seed", seed, "--run-dir", str(run),
                                "--quiet", *options.flags], check=True)


def print_table(options):
    seeds = options.seeds.split(",")
    print(f"`{' '.join(options.flags)}`\n")
    print(f"| schedule | mean | {' | '.join('seed ' + seed for seed in seeds)} | to serial | staleness of the first block |")
    print("| --- " * (len(seeds) + 4) + "|")
    reference = None
    for schedule in options.schedules.split(","):
        summaries = [summary_of(options.folder / f"{schedule}-{seed}") for seed in seeds]
        accuracies = [summary["test_accuracy"] for summary in summaries]
        mean = statistics.mean(accuracies)
        reference = mean if reference is None else reference
        staleness = statistics.mean(next(iter(summary["staleness"].values()))["mean"] for summary in summaries)
        each = " | ".join(f"{accuracy:.2f}" for accuracy in accuracies)
        print(f"| {schedule} | {mean:.2f} | {each} | {mean - reference:+.2f} | {staleness:.2f} |")


if __name__ == "__main__":
    chosen = arguments()
    run_all(chosen)
    print_table(chosen)
