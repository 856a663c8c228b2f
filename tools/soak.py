#!/usr/bin/env python3
"""Training while processes are killed or stopped and links are cut, at random times, against the same training undisturbed.

usage: tools/soak.py RUBATO [FAULTS] [EPOCHS] [--workers 4] [--couplings a,b] [--shares KILL,STOP,CUT] [--pause 0.2,0.8]
                     [--seconds 0.3,4] [--seed 1] [--folder DIR]
       tools/soak.py RUBATO --stop [SECONDS]

One job, and one fault after the other, of three kinds mixed at random:
  kill  SIGKILL to a worker, the coordinator or the launcher; the launcher starts what was killed again, and is itself started again
        with --attach
  stop  SIGSTOP to a worker or the coordinator, and SIGCONT some seconds later (--seconds)
  cut   the link between a worker and all others carries nothing for some seconds. Each worker runs in a network namespace of its own,
        joined to that of coordinator and launcher by a veth pair, whose end there is taken down. Needs root and `ip`; where they are
        missing there are no cuts, unless --shares asks for them.
Faults follow each other with pauses shorter than they last, so they overlap. EPOCHS: by default enough for the faults, from the speed
of a short run.

Must hold:
  * The job ends by itself with exit 0, and so does every process whose last incarnation was not killed; none ends by another signal.
  * Accuracy on held-out data: that of the undisturbed run of as many epochs, but for half a point, and the target or more.
  * Survivors keep 97 % of the undisturbed throughput. A worker survives while it has been let in and is neither killed, stopped nor
    cut off. Its throughput is samples per second of its own time: processor time of its process, and time in which the thread that
    trains waits for anything but a processor (a response, a batch, a lock). Left out is only the time in which it could run and
    others have the processors, such as processes that start; so it falls with every wait and with everything that is done twice, and
    on a machine with a processor for everybody it is samples per second. Kept = samples / (own time x undisturbed rate), summed over
    the intervals from one count of a worker's samples, as its coordinator got it, to the next: all without a cut of that worker
    (stops are subtracted, the time of dead coordinators is in it). The undisturbed rate is that of the same job left alone; at
    moments in which fewer workers run, that of a short job of so few.
  * No survivor waits for 1 s or longer at once, by the worker's own count (where no fault of its own lies in it) and as seen from
    outside: the time in which its thread does not train although it has a processor. A worker that waits to be let in is counted apart.
  * Nobody hangs. 10 s without a step of a worker that is let in and neither stopped nor cut off, counted while the coordinator writes
    its status, is too long; 60 s from the start of a process to its first step, or without a word of the coordinator, as well.

With --stop: one worker stands still, the others are as fast as before, and it finishes.
"""

import argparse
import contextlib
import math
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import namespaces
from rubato_job import Failures, Job, adopt_orphans, leave_on_sigterm
from soak_faults import KINDS, Faults, NoFaults
from soak_watch import Watch

FLAGS = ["--model", "mlp", "--lr", "0.05", "--evaluate-every", "-1", "--checkpoint-every", "500"]
SAMPLES = 60000     # an epoch
TRIAL_EPOCHS = 20
FEWEST_EPOCHS = 60  # with fewer the accuracy still rises, and shows how many steps were made
PROGRESS = 30       # seconds
NO_STEP = 10        # seconds
NO_START = 60       # seconds
HANGS = 120         # seconds without a step of any worker, after which the job is given up


def numbers(count, least=0.0):
    def parse(text):
        values = [float(word) for word in text.split(",")]
        if len(values) != count or min(values) < least or sum(values) == 0:
            raise ValueError
        return values

    parse.__name__ = f"{count} numbers, A,B,..."
    return parse


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rubato")
    parser.add_argument("faults", nargs="?", type=int, default=1200)
    parser.add_argument("epochs", nargs="?", type=int)
    parser.add_argument("--couplings", type=lambda text: text.split(","), default=["async-easgd"])
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--shares", type=numbers(len(KINDS)), metavar="KILL,STOP,CUT", help="of the faults; default 1,1,1")
    parser.add_argument("--pause", type=numbers(2), default=[0.2, 0.8], metavar="A,B", help="seconds from fault to fault")
    parser.add_argument("--seconds", type=numbers(2), default=[0.3, 4], metavar="A,B", help="that a stop or a cut lasts")
    parser.add_argument("--silence", type=float, default=0.6,
                        help="of the job (--silence): a survivor waits for a dead coordinator a quarter of a second longer")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--target", type=float, default=85, help="accuracy in percent")
    parser.add_argument("--kept", type=float, default=97, help="throughput of survivors in percent")
    parser.add_argument("--longest-wait", type=float, default=1, help="seconds")
    parser.add_argument("--stop", nargs="?", type=float, const=30, metavar="SECONDS")
    parser.add_argument("--limit", type=float, default=3600, help="seconds after which a job counts as hanging")
    parser.add_argument("--folder", type=pathlib.Path, help="where the runs stay. Default: one that is removed if all holds")
    return parser.parse_args()


def job_of(options, coupling, name, epochs, workers=None):
    flags = [*FLAGS, "--coupling", coupling, "--silence", str(options.silence), "--epochs", str(epochs)]
    run = options.folder / f"{coupling}-{name}"
    return Job(options.rubato, run, workers or options.workers, flags, restarts=100000, star=options.star)


def undisturbed(options, coupling, name, epochs, failures, workers=None):
    """Summary and watch of a run that is left alone; nothing if it failed."""
    print(f"{coupling} {name}: {epochs} epochs, {workers or options.workers} worker(s)", flush=True)
    with job_of(options, coupling, name, epochs, workers) as job:
        watch = Watch(job, NoFaults())
        in_time = job.wait(options.limit, watch.tick)
        return (job.summary(), watch) if job.check_end(failures, f"{coupling} {name}", in_time) else None


def epochs_for(options, coupling, seconds, failures):
    trial = undisturbed(options, coupling, "trial", TRIAL_EPOCHS, failures)
    return max(FEWEST_EPOCHS, math.ceil(seconds * trial[0]["samples_per_second"] / SAMPLES)) if trial else None


def rates_of_few(options, coupling, failures):
    """Samples for a second of own time in jobs of fewer workers, by their number: those are less in each other's way."""
    rates = {}
    for workers in range(1, options.workers):
        epochs = math.ceil(TRIAL_EPOCHS * workers / options.workers)
        trial = undisturbed(options, coupling, f"trial-{workers}", epochs, failures, workers)
        if trial:
            rates[workers] = trial[1].survivors.rate()
    return rates


def soak(options, coupling, failures):
    # Faults cost time on the processors, so a job makes fewer steps meanwhile than undisturbed.
    needed = options.faults * sum(options.pause) / 2 * 0.9
    epochs = options.epochs or epochs_for(options, coupling, needed, failures)
    rates = rates_of_few(options, coupling, failures) if epochs else {}
    reference = undisturbed(options, coupling, "undisturbed", epochs, failures) if epochs else None
    if not reference:
        return
    rate = reference[1].survivors.rate()
    with job_of(options, coupling, "disturbed", epochs) as job, open(options.folder / f"{coupling}-events.jsonl", "w") as log, \
            Faults(job, options.star, options, log) as faults:
        watch = Watch(job, faults, lambda running: rates.get(running, rate))
        progress = Progress(job, faults, watch)

        def each():
            faults.tick()
            watch.tick()
            progress.tick()

        def hangs():
            return watch.seconds_without_a_step() > HANGS

        in_time = job.wait(options.limit, each, hangs, pause=0.02) and job.ended()
        ended = job.check_end(failures, f"{coupling} with faults", in_time)
        watch.read(job.status())
        report(coupling, epochs, reference, job, faults, watch, progress.seconds())
        check(options, coupling, reference, job, faults, watch, ended, failures)


class Progress:
    """A line from time to time."""

    def __init__(self, job, faults, watch):
        self.job, self.faults, self.watch = job, faults, watch
        self.begin, self.next = time.monotonic(), PROGRESS

    def seconds(self):
        return time.monotonic() - self.begin

    def tick(self):
        if self.seconds() < self.next:
            return
        self.next += PROGRESS
        status, watch = self.job.status(), self.watch
        states = [worker["state"] for worker in status["workers"]]
        print(f"  {self.seconds():5.0f} s: {self.faults.given} faults ({kinds_given(self.faults)}), step {status.get('step', 0)} of "
              f"{status.get('total_steps', 0)}, {states.count('alive')} alive; kept {watch.survivors.kept():.1%}, longest wait "
              f"{max(watch.longest_seen, watch.longest_told):.2f} s, longest without a step {watch.longest_still:.1f} s", flush=True)


def kinds_given(faults):
    return ", ".join(f"{kind} {sum(count for (each, _), count in faults.done.items() if each == kind)}" for kind in KINDS)


def report(coupling, epochs, reference, job, faults, watch, seconds):
    before, alone = reference
    summary, survivors = job.summary(), watch.survivors
    given = ", ".join(f"{kind} of {role} {count}" for (kind, role), count in sorted(faults.done.items()))
    rows = {
        "epochs, all workers together": epochs,
        "faults": f"{faults.given}: {given}",
        "deaths of workers that coordinators saw, joins": f"{watch.of_job('deaths')}, {watch.of_job('joins')}",
        "restarts by the launcher": sum(process["incarnation"] for process in job.record()),
        "seconds, undisturbed": f"{before['seconds']:.1f}",
        "seconds, disturbed (with start)": f"{seconds:.1f}",
        "accuracy, undisturbed": f"{before['test_accuracy']:.2f} %",
        "accuracy, disturbed": f"{summary['test_accuracy']:.2f} %" if "test_accuracy" in summary else "none",
        "samples per second of own time, undisturbed": f"{alone.survivors.rate():.0f}",
        "the same of survivors, disturbed": f"{survivors.rate():.0f}",
        "throughput that survivors kept": f"{survivors.kept():.1%}, of {survivors.seconds:.0f} seconds of workers",
        "throughput kept around cuts of the link": f"{watch.cut_off.kept():.1%}, of {watch.cut_off.seconds:.0f} seconds of workers",
        "share of time that survivors wait": f"{survivors.waiting():.1%}, undisturbed {alone.survivors.waiting():.1%}",
        "longest wait of a survivor, as seen": f"{watch.longest_seen:.2f} s",
        "longest wait of a survivor, as it counts": f"{watch.longest_told:.2f} s",
        "longest time without a step of a live worker": f"{watch.longest_still:.1f} s",
        "longest from the start of a worker to a step": f"{watch.longest_start:.1f} s",
        "longest silence of a coordinator that runs": f"{watch.longest_silence:.1f} s",
        "exchanges made, skipped": f"{watch.total('exchanges')}, {watch.total('exchanges_skipped')}",
        "ends": ", ".join(f"{name} {ending}" for name, ending in job.last_endings().items()),
    }
    print_rows(coupling, rows)


def print_rows(title, rows):
    print(f"\n{title}")
    for name, value in rows.items():
        print(f"  {name:46} {value}", flush=True)


def check(options, coupling, reference, job, faults, watch, ended, failures):
    failures.check(faults.left == 0, f"{coupling}: the job ended with {faults.left} faults left, it needs more epochs")
    check_endings(coupling, job, faults, failures)
    accuracy = job.summary().get("test_accuracy") if ended else None
    if accuracy is not None:
        best = reference[0]["test_accuracy"]
        failures.check(min(accuracy, best) >= options.target, f"{coupling}: accuracy below {options.target} %")
        failures.check(abs(accuracy - best) <= 0.5, f"{coupling}: accuracy differs by {accuracy - best:+.2f} points")
    kept, longest = 100 * watch.survivors.kept(), max(watch.longest_seen, watch.longest_told)
    failures.check(kept >= options.kept, f"{coupling}: survivors kept {kept:.1f} % of their throughput, not {options.kept:g} %")
    failures.check(longest < options.longest_wait, f"{coupling}: a survivor waited for {longest:.2f} s")
    failures.check(watch.longest_still < NO_STEP, f"{coupling}: {watch.longest_still:.1f} s without a step of a live worker")
    failures.check(watch.longest_start < NO_START, f"{coupling}: a worker made no step for {watch.longest_start:.0f} s after its start")
    failures.check(watch.longest_silence < NO_START, f"{coupling}: the coordinator said nothing for {watch.longest_silence:.0f} s")


def check_endings(coupling, job, faults, failures):
    killed = {process["name"] for process in job.record() if faults.killed.get(process["name"]) == process["pid"]}
    for name, ending in job.last_endings().items():
        failures.check(ending == "exit 0" or name in killed, f"{coupling}: {name} ended with {ending or 'nobody knows what'}")
    others = {(name, ending) for name, ending in job.all_endings() if ending not in ("exit 0", f"signal {signal.SIGKILL:d}")}
    failures.check(not others, f"{coupling}: processes ended that nobody had killed: {sorted(others)}")


class Rate:
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
    before, during = Rate(others), Rate(others)
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


def star_for(options):
    """The network of the job; none where nothing is to be cut. Leaves where it is asked for and cannot be made."""
    asked = options.shares is not None
    options.shares = options.shares or [1.0] * len(KINDS)
    if options.stop is not None or options.shares[KINDS.index("cut")] == 0:
        return None
    try:
        if namespaces.is_possible():
            with namespaces.Star(1):
                return namespaces.Star(options.workers)
    except subprocess.CalledProcessError:  # namespaces, and no bridge or veth
        pass
    sentence = "links cannot be cut here: that needs root, `ip`, network namespaces, veth and bridges"
    if asked:
        print(f"{sentence}; leave cuts out with --shares 1,1,0", file=sys.stderr)
        sys.exit(2)
    print(f"{sentence}; kills and stops only", flush=True)
    options.shares[KINDS.index("cut")] = 0
    return None


def run(options, failures):
    with contextlib.ExitStack() as stack:
        star = star_for(options)
        options.star = stack.enter_context(star) if star else None
        for coupling in options.couplings:
            (soak if options.stop is None else stop)(options, coupling, failures)


def main():
    options, failures = arguments(), Failures()
    leave_on_sigterm()
    adopt_orphans()
    temporary = None if options.folder else pathlib.Path(tempfile.mkdtemp(prefix="rubato-soak-"))
    options.folder = options.folder or temporary
    options.folder.mkdir(parents=True, exist_ok=True)
    try:
        run(options, failures)
    finally:
        if temporary and not failures.sentences:
            shutil.rmtree(temporary)
    if failures.sentences:
        print(f"\nthe runs are in {options.folder}", flush=True)
    failures.leave()


if __name__ == "__main__":
    main()
