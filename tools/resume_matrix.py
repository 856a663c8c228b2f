#!/usr/bin/env python3
"""Every run that goes on is the same run, or it is refused before anything is written.

usage: tools/resume_matrix.py RUBATO [--pairwise | --list] [--jobs N] [--schedule A,B] [--coupling A,B] [--layout A,B]
                              [--workers A,B] [--moment A,B] [--folder DIR]

The matrix: every schedule x every coupling x
  layout    threads; processes (a replica in each); stages (a stage of a replica in each)
  workers   goes on with the same number, fewer, more; elsewhere: a job in one process, threads in several
  moment    between two epochs, in the middle of one, finished, at its target, interrupted (SIGTERM); with other data, with another
            text, with an edited config.toml
One line per cell: ok and what was the same, ok and refused, or not ok, FAIL and why. Exit code 1 if any FAILed.

Must hold where it goes on: the weights are the same bit for bit, and the figures, where the method fixes them; else steps, samples,
epochs and the rate at the end are those of a whole run, and the loss is what it was, since the rate has fallen to nothing before.
Where it is refused: exit code 2 or 3, one sentence, and every file of the run folder is what it was.

--pairwise: a cover of all pairs of values that can occur together, in a minute or two. All cells take hours. A cell that is refused
covers what it is refused for, and no more.
"""

import argparse
import collections
import concurrent.futures
import heapq
import itertools
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import threading

from resume_cell import (Cell, EPOCHS, flags_of, is_frozen, place_after, possible, processes_of, refusals, repeats, replicas_of,
                         write_data)
from resume_checks import Lab, Part, Wrong, check, run_cell
from rubato_job import leave_on_sigterm

LAYOUTS = ("threads", "processes", "stages")
WORKERS = ("same", "fewer", "more", "elsewhere")
MOMENTS = ("between", "middle", "finished", "target", "interrupted", "other-data", "other-text", "edited")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rubato", type=lambda path: str(pathlib.Path(path).resolve()))
    parser.add_argument("--pairwise", action="store_true")
    parser.add_argument("--list", action="store_true", help="print the cells and run nothing")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="cells at once")
    parser.add_argument("--folder", type=pathlib.Path, help="new; where runs of FAILed cells stay. Default: one that is removed")
    for axis in Cell._fields:
        parser.add_argument(f"--{axis}", type=lambda text: text.split(","), help=argparse.SUPPRESS)
    return parser.parse_args()


def names(rubato, kind):
    listed = subprocess.run([rubato, "list", kind], capture_output=True, text=True, check=True).stdout
    return [line.split()[0] for line in listed.splitlines() if line and not line[0].isspace()]


def all_cells(options):
    axes = (names(options.rubato, "schedules"), names(options.rubato, "couplings"), LAYOUTS, WORKERS, MOMENTS)
    chosen = []
    for axis, values in zip(Cell._fields, axes):
        wanted = getattr(options, axis) or values
        unknown = set(wanted) - set(values)
        if unknown:
            sys.exit(f"--{axis} {', '.join(unknown)}: there are {', '.join(values)}")
        chosen.append([value for value in values if value in wanted])
    return [cell for cell in map(Cell._make, itertools.product(*chosen)) if possible(cell)]


def pairs_of(cell):
    """Pairs of values that it tries. One that is refused tries those that have to do with that."""
    pairs = set(itertools.combinations(zip(Cell._fields, cell), 2))
    reasons = [axes for _, axes in refusals(cell)]
    return {(one, two) for one, two in pairs if not reasons or any(axes <= {one[0], two[0]} for axes in reasons)}


def cost(cell):
    """Processes that are started."""
    processes = (processes_of(cell), place_after(cell)[0])
    return sum(1 + count for count in processes) + (1 if repeats(cell) and not refusals(cell) else 0)


def pairwise(cells):
    """Some of `cells` with all pairs of values that any of them has. Greedy: the cell with most new pairs for its cost is next."""
    missing = set().union(*map(pairs_of, cells))
    order = {cell: (7919 * index) % len(cells) for index, cell in enumerate(cells)}  # ties go to everybody in turn
    queue = [(-len(pairs_of(cell)) / cost(cell), order[cell], cell) for cell in cells]
    heapq.heapify(queue)
    chosen = []
    while missing:
        _, _, cell = heapq.heappop(queue)
        gain = -len(pairs_of(cell) & missing) / cost(cell)
        if queue and gain > queue[0][0]:  # others took some of its pairs
            heapq.heappush(queue, (gain, order[cell], cell))
            continue
        chosen.append(cell)
        missing -= pairs_of(cell)
    return chosen


class Wholes:
    """Uninterrupted runs, each made once."""

    def __init__(self, rubato, folder):
        self.rubato, self.folder = rubato, folder
        self.lock, self.runs = threading.Lock(), {}
        folder.mkdir()

    def of(self, cell):
        key = f"{cell.schedule}-{cell.coupling}-{replicas_of(cell)}"
        with self.lock:
            run = self.runs.setdefault(key, concurrent.futures.Future())
            mine = not run.running() and not run.done() and run.set_running_or_notify_cancel()
        if mine:
            try:
                run.set_result(self.make(cell, self.folder / key))
            except Wrong as wrong:
                run.set_exception(wrong)
        return run.result()

    def make(self, cell, folder):
        lab = Lab(self.rubato, folder)
        words = ["train", *flags_of(cell), "--epochs", str(EPOCHS), "--run-dir", "run"]
        lab.expect(0, 0, words if cell.coupling == "none" else [*words, "--replicas", str(replicas_of(cell))], "run")
        return Part(folder / "run")


class Report:
    """Lines of cells as they come, and how many of each kind."""

    def __init__(self):
        self.lock, self.counts = threading.Lock(), collections.Counter()

    def line(self, cell, kind, text):
        with self.lock:
            self.counts[kind] += 1
            verdict = ("not ok", "FAIL: ") if kind == "FAIL" else ("ok", "")
            print(f"{verdict[0]} - {', '.join(cell)}: {verdict[1]}{text}", flush=True)

    def leave(self):
        counts = self.counts
        print(f"\n{sum(counts.values())} cells: {counts['goes on']} go on, {counts['refused']} are refused, {counts['FAIL']} FAIL")
        sys.exit(1 if counts["FAIL"] else 0)


def run_group(options, root, cells, wholes, report):
    """Cells that have their first part in common."""
    cell = cells[0]
    folder = root / "-".join(cell._replace(workers="frozen" if is_frozen(cell) else "moving"))
    lab, failure, failed = Lab(options.rubato, folder), None, False
    try:
        lab.train(cell, "first")
    except (Wrong, OSError) as error:
        failure = f"the first part: {error}"
    for each in cells:
        try:
            check(failure is None, failure)
            text = run_cell(lab, each, "first", wholes.of)
            report.line(each, "refused" if text.startswith("refused") else "goes on", text)
        except (Wrong, OSError, LookupError, ValueError) as error:  # what a run has not written, or written wrongly
            report.line(each, "FAIL", error if isinstance(error, Wrong) else repr(error))
            failed = True
    if not failed:
        shutil.rmtree(folder)


def main():
    options = arguments()
    leave_on_sigterm()
    cells = all_cells(options)
    if options.pairwise:
        every = [cell for cell in cells if cell.moment != "edited"]  # of which tests/app/resume_refusal_test.cpp knows more
        cells = pairwise(every)
        left_out = set().union(*map(pairs_of, every)) - set().union(*map(pairs_of, cells))
        if left_out:
            sys.exit(f"the cover leaves out {sorted(left_out)}")
    if options.list:
        print("\n".join(", ".join(cell) for cell in cells) + f"\n\n{len(cells)} cells, {sum(map(cost, cells))} processes")
        return
    groups = collections.defaultdict(list)
    for cell in cells:
        groups[cell._replace(workers=""), is_frozen(cell)].append(cell)
    most_first = sorted(groups.values(), key=lambda group: -sum(map(cost, group)))
    with tempfile.TemporaryDirectory(prefix="rubato-resume-") as scratch:
        root = options.folder or pathlib.Path(scratch) / "runs"
        root.mkdir(parents=True)
        write_data(root)
        wholes, report = Wholes(options.rubato, root / "whole"), Report()
        (root / "cells").mkdir()
        with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
            for future in [pool.submit(run_group, options, root / "cells", group, wholes, report) for group in most_first]:
                future.result()
        report.leave()


if __name__ == "__main__":
    main()
