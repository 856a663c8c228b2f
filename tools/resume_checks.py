"""One cell of tools/resume_matrix.py: a run, what interrupts it, where it goes on, and whether it is the same run."""

import json
import math
import os
import pickle
import re
import shutil
import signal
import subprocess
import time
import zipfile

from resume_cell import (EPOCHS, SAMPLES, RATE_EPOCHS, ROLES, first_part, flags_of, is_free, place_after,
                         processes_of, rate_at_the_end, rate_factor, refusals, repeats, replicas_of, samples_of, second_part, steps_in)
from rubato_job import kill_all, read_json

LIMIT = 120                     # seconds of one command
LEARNED = 2.2                   # test loss that the first part must have reached: it begins with 2.3
BOUND = 0.3                     # of how far it moves after that


class Wrong(Exception):
    """What does not hold, in one sentence."""


def check(holds, sentence):
    if not holds:
        raise Wrong(sentence)


class Lab:
    """Runs commands of one group of cells, which have the first part in common, in a folder of their own."""

    def __init__(self, rubato, folder):
        self.rubato, self.folder = rubato, folder
        folder.mkdir()

    def command(self, processes, words):
        if processes == 0:
            return [self.rubato, *words]
        return [self.rubato, "launch", "-n", str(processes), "--quiet", "--", *words]

    def start(self, processes, words):
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(self.command(processes, words), cwd=self.folder, env=environment, stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)

    def end(self, child, run):
        """Exit code and standard error."""
        try:
            _, errors = child.communicate(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            child.kill()
            kill_all(self.folder / run)
            child.communicate()
            raise Wrong(f"does not end within {LIMIT} s: {' '.join(child.args[1:])}") from None
        return child.returncode, errors

    def run(self, processes, words, run):
        return self.end(self.start(processes, words), run)

    def expect(self, code, processes, words, run):
        got, errors = self.run(processes, words, run)
        check(got == code, f"exit {got} instead of {code} of {' '.join(words)}: {errors.strip()}")

    def train(self, cell, run):
        """The first part. A signal that comes too late is sent to a slower run."""
        processes, replicas = processes_of(cell), replicas_of(cell)
        words = ["train", *flags_of(cell), *first_part(cell), "--run-dir", run]
        if cell.coupling != "none":
            words += ["--replicas", str(replicas)]
        if cell.moment != "interrupted":
            return self.expect(0, processes, words, run)
        for delay in (10, 40, 160):
            slow = [f"--inject-delay={prefix}{role}:{delay}" for prefix in ("", *(f"r{i}/" for i in range(replicas)))
                    for role in ROLES]
            child = self.start(processes, [*words, *slow])
            self.wait_for(child, run, steps_in(RATE_EPOCHS, replicas))
            if child.poll() is None:
                os.kill(child.pid, signal.SIGTERM)
            code, errors = self.end(child, run)
            if code == 0:
                shutil.rmtree(self.folder / run)
                continue
            check(code == 130, f"exit {code} instead of 130 after SIGTERM: {errors.strip()}")
            status = (read_json(self.folder / run / "summary.json") or {}).get("status")
            check(status == "interrupted", f"the summary of an interrupted run says {status}")
            return None
        raise Wrong("ended before the signal came, however slow it was")

    def wait_for(self, child, run, step):
        """Until a checkpoint has been written after `step`."""
        latest, deadline = self.folder / run / "checkpoint" / "latest", time.monotonic() + LIMIT
        while child.poll() is None and time.monotonic() < deadline:
            try:
                if int(latest.read_text().rpartition("-")[2]) > step:
                    return
            except (FileNotFoundError, ValueError):
                pass
            time.sleep(0.002)


class Part:
    """What a run folder says."""

    def __init__(self, run):
        self.summary = read_json(run / "summary.json") or {}
        checkpoint = run / "checkpoint" / (run / "checkpoint" / "latest").read_text().strip()
        self.state = read_json(checkpoint / "state.json")
        self.rates = sorted({rate for rate in last_rates(checkpoint / "state.pt") if rate > 0})
        of_the_clock = ("time", "seconds", "samples_per_second")
        self.lines = [{key: value for key, value in json.loads(line).items() if key not in of_the_clock}
                      for line in (run / "metrics.jsonl").read_text().splitlines()]


def last_rates(file):
    """Of the latest step of each block's optimizer, from an archive of libtorch."""

    class Anything:
        def __new__(cls, *_):
            return object.__new__(cls)

        def __setstate__(self, state):
            self.__dict__.update(state)

    class Reader(pickle.Unpickler):
        def find_class(self, module, name):
            return Anything

        def persistent_load(self, _):
            return None

    def rates_in(value):
        for key, inner in vars(value).items():
            if key == "last_rate":
                yield inner
            elif isinstance(inner, Anything):
                yield from rates_in(inner)

    with zipfile.ZipFile(file) as archive:
        name = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
        with archive.open(name) as stream:
            yield from rates_in(Reader(stream).load())


def everything_in(folder):
    """Every file by name with what it holds, and every folder."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def must_be_refused(lab, cell, run, codes):
    before = everything_in(lab.folder / run)
    code, errors = lab.run(place_after(cell)[0], second_part(cell, run), run)
    after = everything_in(lab.folder / run)
    sentences = [line for line in errors.splitlines() if line.startswith("rubato: ") and " ended (exit " not in line]
    check(code in codes, f"exit {code}, not {' or '.join(map(str, codes))}: {errors.strip() or 'without a word'}")
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name, 0) != after.get(name, 0))
    check(not changed, f"refused after {', '.join(changed)} had been written: {sentences}")
    check(len(set(sentences)) == 1, f"is refused with {len(set(sentences))} sentences: {errors.strip()}")
    return f"refused ({code})"


def must_be_over(cell, before, after):
    """Nothing is trained any more, and nothing is forgotten."""
    same = place_after(cell)[1] == before.state["replicas"]
    keys = ["status", "train_loss", "last_train_loss", "test_loss", "test_accuracy", "seconds", "seconds_to_target",
            "staleness", "centre_staleness"]
    if same:
        keys += ["steps", "epochs"]
    if same and place_after(cell)[0] == processes_of(cell):
        keys += ["weights_digest"]
    for key in keys:
        check(after.summary.get(key) == before.summary.get(key),
              f"{key} of a run that is over was {before.summary.get(key)} and is {after.summary.get(key)}")
    for key in ("samples", "steps_of_all"):
        check(after.state[key] == before.state[key], f"{key} was {before.state[key]} and is {after.state[key]}")
    return "is over, with its figures"


def must_have_the_bits(cell, whole, after):
    for key in ("weights_digest", "test_loss", "test_accuracy"):
        check(after.summary[key] == whole.summary[key], f"{key} is {after.summary[key]}, uninterrupted {whole.summary[key]}")
    alone = replicas_of(cell) == 1
    for key in ("train_loss", "last_train_loss") if alone else ("train_loss",):  # a window of 50 reports ends with somebody's
        check(abs(after.summary[key] - whole.summary[key]) < 1e-6 * whole.summary[key],
              f"{key} is {after.summary[key]}, uninterrupted {whole.summary[key]}")
    if cell.layout == "threads" and cell.workers == "same":
        check(after.summary["staleness"] == whole.summary["staleness"], "staleness is not that of the uninterrupted run")
        if cell.moment == "middle" and alone:
            check(after.lines == whole.lines, "metrics.jsonl is not that of the uninterrupted run")
    return "the same bits"


def must_have_the_figures(cell, before, after):
    """Where it began, how far it came, with what rate, how well."""
    replicas = place_after(cell)[1]
    begin, end = -(-before.state["step"] * before.state["replicas"] // replicas), steps_in(EPOCHS, replicas)
    check(after.summary["status"] == "done", f"the summary says {after.summary['status']}")
    check(after.summary["steps"] == end, f"{after.summary['steps']} steps, not {end}")
    check(abs(after.summary["epochs"] - after.state["samples"] / SAMPLES) < 1e-9, f"{after.summary['epochs']} epochs")
    steps, samples = (after.state[key] - before.state[key] for key in ("steps_of_all", "samples"))
    if is_free(cell):  # who comes later begins where the slowest is
        check(end - begin <= steps <= (end - begin) * replicas, f"{steps} steps of all after step {begin}")
    else:
        check(steps == (end - begin) * replicas, f"{steps} steps of all after step {begin}, not {(end - begin) * replicas}")
        expected = samples_of(cell, replicas, begin, end)
        check(samples == expected, f"{samples} samples after step {begin}, not {expected}")
    if not is_free(cell) and cell.coupling != "admm":  # a coordinator keeps no optimizer of free workers; admm has none
        rate = rate_at_the_end(cell)
        allowed = [rate, rate / rate_factor(cell)] if cell.schedule == "lpp" else [rate]  # a block takes part in some steps only
        check(after.rates and all(any(abs(each / one - 1) < 1e-6 for one in allowed) for each in after.rates),
              f"the rate at the end is {after.rates}, not {rate}")
    for key in ("train_loss", "last_train_loss", "test_loss"):
        check(isinstance(after.summary[key], float) and math.isfinite(after.summary[key]), f"{key} is {after.summary[key]}")


def must_be_as_good(cell, before, after):
    """Nothing moves any more but replicas and centre towards each other, and the mean of all centres towards the last one."""
    loss, reference = after.summary["test_loss"], before.summary["test_loss"]
    check(max(loss, reference) < LEARNED, f"has not learned: test loss {loss}, before {reference}")
    is_mean = cell.coupling in ("adownpour", "mvadownpour")
    check(is_mean or abs(loss - reference) < BOUND, f"test loss {loss}, before {reference}")
    return f"the same figures (loss {reference:.3f} and {loss:.3f})"


def run_cell(lab, cell, first, whole_of):
    """What came of it, in a few words; Wrong if that is not right. `first`: folder of the first part, which stays as it is.
    `whole_of(cell)`: the uninterrupted run as a Part."""
    run = f"{first}-{cell.workers}"
    shutil.copytree(lab.folder / first, lab.folder / run)
    if cell.moment == "edited":
        config = lab.folder / run / "config.toml"
        text, edits = re.subn(r"(?m)^lr = .*$", "lr = 0.3", config.read_text())
        check(edits == 1, "config.toml has no lr")
        config.write_text(text)
    codes = {code for code, _ in refusals(cell)}
    if codes:
        return must_be_refused(lab, cell, run, codes)
    lab.expect(0, place_after(cell)[0], second_part(cell, run), run)
    before, after = Part(lab.folder / first), Part(lab.folder / run)
    if cell.moment in ("finished", "target"):
        return must_be_over(cell, before, after)
    must_have_the_figures(cell, before, after)
    if repeats(cell):
        return must_have_the_bits(cell, whole_of(cell), after)
    return must_be_as_good(cell, before, after)
