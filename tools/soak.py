#!/usr/bin/env python3
"""Training while processes are killed, or stopped, at random times, against the same training undisturbed.

usage: tools/soak.py RUBATO [KILLS] [EPOCHS] [--couplings a,b] [--workers 8] [--seed 1] [--folder DIR]
       tools/soak.py RUBATO --stop [SECONDS]

A process is any worker, the coordinator or the launcher; a launcher that was killed is started again with --attach. EPOCHS: by default
enough for the kills, from the speed of a short run. --stop: one worker gets SIGSTOP, and SIGCONT that many seconds later.
Must hold: the run ends by itself with exit 0; its accuracy reaches the target and is that of the undisturbed run but for half a
point; no worker waits for longer than 2 s at once. A worker that was started again and waits to be let in is counted apart.
With --stop: the others are as fast as before, the stopped one finishes.
"""

import argparse
import math
import os
import pathlib
import random
import signal
import tempfile
import time

from rubato_job import Failures, Job, leave_on_sigterm, read_json

FLAGS = ["--model", "mlp", "--lr", "0.05", "--evaluate-every", "-1", "--checkpoint-every", "500"]
PAUSE = (0.5, 2.0)  # seconds from kill to kill
SAMPLES = 60000     # an epoch
TRIAL_EPOCHS = 10
HANGS = 90          # seconds without a step of any worker


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rubato")
    parser.add_argument("kills", nargs="?", type=int, default=100)
    parser.add_argument("epochs", nargs="?", type=int)
    parser.add_argument("--couplings", type=lambda text: text.split(","), default=["async-easgd", "eamsgd"])
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--target", type=float, default=85, help="accuracy in percent")
    parser.add_argument("--longest-wait", type=float, default=2, help="seconds")
    parser.add_argument("--stop", nargs="?", type=float, const=30, metavar="SECONDS")
    parser.add_argument("--limit", type=float, default=3600, help="seconds after which a job counts as hanging")
    parser.add_argument("--folder", type=pathlib.Path, help="new; where the runs stay. Default: one that is removed")
    return parser.parse_args()


def job_of(options, coupling, name, epochs):
    flags = [*FLAGS, "--coupling", coupling, "--epochs", str(epochs)]
    return Job(options.rubato, options.folder / f"{coupling}-{name}", options.workers, flags, restarts=100000)


def undisturbed(options, coupling, name, epochs, failures):
    """The summary of a run that is left alone; nothing if it failed."""
    with job_of(options, coupling, name, epochs) as job:
        in_time = job.wait(options.limit)
        return job.summary() if job.check_end(failures, f"{coupling} undisturbed", in_time) else None


def epochs_for(options, coupling, seconds, failures):
    trial = undisturbed(options, coupling, "trial", TRIAL_EPOCHS, failures)
    return math.ceil(seconds * trial["samples_per_second"] / SAMPLES) if trial else None


class Observed:
    """What the status told of every process: counts of a process are lost with it, so they are kept as they were seen last."""

    def __init__(self):
        self.workers, self.coordinators, self.joining, self.since = {}, {}, {}, {}
        self.next, self.moved, self.standstill = 0, time.monotonic(), 0

    def see_now_and_then(self, status):
        if time.monotonic() >= self.next:
            self.next = time.monotonic() + 0.5
            self.see(status)

    def see(self, status):
        if "coordinator" in status:
            self.coordinators[status["coordinator"]["pid"]] = status
        for worker in status["workers"]:
            if worker["pid"] == 0:
                continue
            key = (worker["rank"], worker["pid"])
            # Up to its first step a worker waits to be let in.
            if worker["samples"] == 0:
                self.joining[key] = worker["longest_wait_seconds"]
            self.workers[key] = worker
            self.step_at(key, worker, status["time"])

    def step_at(self, key, worker, when):
        """A wait that lasts is in no count yet, but the step stays what it was."""
        step, since = self.since.get(key, (None, None))
        if worker["step"] != step:
            self.since[key] = (worker["step"], when)
            self.moved = time.monotonic()
        elif worker["state"] == "alive" and worker["samples"] > 0:
            self.standstill = max(self.standstill, when - since)

    def hangs(self):
        return time.monotonic() - self.moved > HANGS

    def longest_waits(self):
        """Of workers at work, and of workers that came back before they were."""
        working = [worker["longest_wait_seconds"] for key, worker in self.workers.items()
                   if worker["longest_wait_seconds"] > self.joining.get(key, 0)]
        return max(working, default=0), max(self.joining.values(), default=0)

    def total(self, field):
        return sum(worker[field] for worker in self.workers.values())

    def of_job(self, field):
        return max((status[field] for status in self.coordinators.values()), default=0)


class Killer:
    """SIGKILL at random times to random processes of a job, until none is left to give."""

    def __init__(self, job, kills, seed):
        self.job, self.left, self.random = job, kills, random.Random(seed)
        self.done = {"worker": 0, "coordinator": 0, "launcher": 0}
        self.at = None

    def tick(self):
        if self.left == 0:
            return
        if self.at is None:
            if self.job.is_training():
                self.plan()
        elif time.monotonic() >= self.at and self.job.status()["state"] == "running" and not self.job.ended():
            self.kill()
            self.plan()

    def plan(self):
        self.at = time.monotonic() + self.random.uniform(*PAUSE)

    def kill(self):
        processes = self.job.processes()
        victim = self.random.choice(["launcher", *sorted(processes)])
        if victim == "launcher":
            self.job.launcher.kill()
            self.job.launcher.wait()
            self.job.attach()
        else:
            try:
                os.kill(processes[victim], signal.SIGKILL)
            except ProcessLookupError:
                return
        self.left -= 1
        self.done[victim.partition("-")[0]] += 1


def soak(options, coupling, failures):
    needed = options.kills * sum(PAUSE) / 2 * 1.2
    epochs = options.epochs or epochs_for(options, coupling, needed, failures)
    reference = undisturbed(options, coupling, "undisturbed", epochs, failures) if epochs else None
    if not reference:
        return
    observed, begin = Observed(), time.monotonic()
    with job_of(options, coupling, "killed", epochs) as job:
        killer = Killer(job, options.kills, options.seed)

        def each():
            observed.see_now_and_then(job.status())
            killer.tick()

        in_time = job.wait(options.limit, each, until=observed.hangs) and job.ended()
        ended = job.check_end(failures, f"{coupling} with kills", in_time)
        observed.see(job.status())
        report(coupling, epochs, reference, job, observed, killer, time.monotonic() - begin)
        check(options, coupling, reference, job, observed, killer, ended, failures)


def report(coupling, epochs, reference, job, observed, killer, seconds):
    summary = job.summary()
    working, joining = observed.longest_waits()
    record = job_record(job)
    rows = {
        "epochs, all workers together": epochs,
        "kills": ", ".join(f"{kind} {count}" for kind, count in killer.done.items()),
        "deaths of workers that coordinators saw, joins": f"{observed.of_job('deaths')}, {observed.of_job('joins')}",
        "restarts by the launcher": sum(process["incarnation"] for process in record),
        "seconds, undisturbed": f"{reference['seconds']:.1f}",
        "seconds, killed (with start)": f"{seconds:.1f}",
        "accuracy, undisturbed": f"{reference['test_accuracy']:.2f} %",
        "accuracy, killed": f"{summary['test_accuracy']:.2f} %" if "test_accuracy" in summary else "none",
        "longest wait of a worker at work": f"{working:.2f} s",
        "longest wait of a worker to be let in": f"{joining:.2f} s",
        "longest time at one step, as the status saw": f"{observed.standstill:.1f} s",
        "exchanges made, skipped": f"{observed.total('exchanges')}, {observed.total('exchanges_skipped')}",
    }
    print_rows(coupling, rows)


def print_rows(title, rows):
    print(f"\n{title}")
    for name, value in rows.items():
        print(f"  {name:44} {value}", flush=True)


def job_record(job):
    return (read_json(job.run / "job.json") or {"processes": []})["processes"]


def check(options, coupling, reference, job, observed, killer, ended, failures):
    failures.check(killer.left == 0, f"{coupling}: the job ended with {killer.left} kills left, it needs more epochs")
    accuracy = job.summary().get("test_accuracy") if ended else None
    if accuracy is not None:
        failures.check(min(accuracy, reference["test_accuracy"]) >= options.target, f"{coupling}: below {options.target} %")
        difference = accuracy - reference["test_accuracy"]
        failures.check(abs(difference) <= 0.5, f"{coupling}: accuracy differs by {difference:+.2f} points")
    longest = observed.longest_waits()[0]
    failures.check(longest <= options.longest_wait, f"{coupling}: a worker waited for {longest:.2f} s")


class Window:
    """Samples per second of some workers between two moments, from the status as it is written: once a second."""

    def __init__(self, ranks):
        self.ranks, self.seen = ranks, []

    def see(self, status):
        if status["time"] and (not self.seen or status["time"] > self.seen[-1][0]):
            self.seen.append((status["time"], sum(w["samples"] for w in status["workers"] if w["rank"] in self.ranks)))

    def rate(self):
        (begin, first), (end, last) = self.seen[0], self.seen[-1]
        return (last - first) / (end - begin) if end > begin else float("nan")


def stop(options, coupling, failures):
    """One worker stands still for a while."""
    seconds, warm = options.stop, 3.0
    epochs = options.epochs or epochs_for(options, coupling, 2.2 * seconds + warm, failures)
    if not epochs:
        return
    stopped = options.workers - 1
    others = set(range(stopped))
    before, during = Window(others), Window(others)
    with job_of(options, coupling, "stopped", epochs) as job:
        if not job.wait(120, until=job.is_training) or job.ended():
            return failures.check(False, f"{coupling}: does not begin, or has ended already")
        job.wait(warm)  # the first seconds are not as fast
        job.wait(min(seconds, 15), lambda: before.see(job.status()))
        pid = job.processes().get(f"worker-{stopped}")
        if pid is None:
            return failures.check(False, f"{coupling}: ended before the stop, it needs more epochs")
        os.kill(pid, signal.SIGSTOP)
        try:
            job.wait(seconds, lambda: during.see(job.status()))
            at_stop = job.status()
        finally:
            os.kill(pid, signal.SIGCONT)
        job.wait(20, until=lambda: worker_of(job, stopped).get("state") in ("alive", "finished"))
        at_return = worker_of(job, stopped)
        ended = job.check_end(failures, f"{coupling} with a stop", job.wait(options.limit))
        report_stop(coupling, stopped, before, during, at_stop, at_return, job, failures, ended)


def worker_of(job, rank):
    return next((worker for worker in job.status()["workers"] if worker["rank"] == rank), {})


def report_stop(coupling, stopped, before, during, at_stop, at_return, job, failures, ended):
    busy = all(worker["state"] == "alive" for worker in at_stop["workers"] if worker["rank"] != stopped)
    failures.check(busy, f"{coupling}: others had finished before the stop was over, it needs more epochs")
    ratio = during.rate() / before.rate()
    then = next((worker for worker in at_stop["workers"] if worker["rank"] == stopped), {})
    now = worker_of(job, stopped)
    rows = {
        "samples/s of the others, before": f"{before.rate():.0f}",
        "samples/s of the others, during": f"{during.rate():.0f}  (ratio {ratio:.3f})",
        "the stopped one, during": f"{then.get('state')}, not heard for {then.get('silent_seconds', 0):.1f} s, "
                                   f"step {then.get('step')}",
        "the stopped one, at the end": f"{now.get('state')}, step {now.get('step')}",
        "when it is heard again": f"{at_return.get('state')}, {at_return.get('steps_behind')} steps behind the furthest",
        "accuracy": f"{job.summary().get('test_accuracy')} %",
    }
    print_rows(f"{coupling}: worker {stopped} stands still", rows)
    failures.check(ratio >= 0.9, f"{coupling}: the others became slower, {ratio:.3f}")
    if ended:
        failures.check(now.get("state") == "finished", f"{coupling}: the stopped worker has not finished")
        failures.check(at_return.get("steps_behind", 0) > 0, f"{coupling}: the status does not say how stale it came back")


def main():
    options, failures = arguments(), Failures()
    leave_on_sigterm()
    with tempfile.TemporaryDirectory(prefix="rubato-soak-") as temporary:
        options.folder = options.folder or pathlib.Path(temporary)
        options.folder.mkdir(parents=True, exist_ok=True)
        for coupling in options.couplings:
            (soak if options.stop is None else stop)(options, coupling, failures)
    failures.leave()


if __name__ == "__main__":
    main()
