"""What tools/soak.py does to a job: processes that are killed or stopped, links that are cut, at random from a seed."""

import collections
import json
import os
import random
import signal
import time

KINDS = ("kill", "stop", "cut")
MANY = 40  # faults of a worker that no interval of its samples outlasts


class Window:
    """One fault of a worker. It lasts from `begin` to `end`, and is `over` when the worker takes part again; None: not yet."""

    def __init__(self, kind, begin):
        self.kind, self.begin, self.end, self.over = kind, begin, None, None

    def heard(self, when, started):
        """A word from that time, of a process that was started then, has come to the coordinator."""
        if started > self.begin if self.kind == "kill" else self.end is not None and when > self.end:
            self.over = when

    def touches(self, begin, end):
        return self.begin <= end and (self.over is None or self.over >= begin)


class NoFaults:
    """Of a job that is left alone."""

    stopped = {}

    def note(self, what, whom, seconds):
        pass

    def lately(self, rank):
        return []

    def not_over(self, rank):
        return []

    def stopped_seconds(self, rank, now):
        return 0


class Faults:
    """Faults of a job, one after the other with random pauses, until none is left to give. Times are those of time.time().

    A kill may hit a worker, the coordinator or the launcher, also one that is stopped; a stop a worker or the coordinator; a cut
    the link of a worker to all others. What a fault is (kind, pause, length, whom it would hit first) depends on the seed and its
    number alone; who can be hit depends on what runs at the moment.
    """

    def __init__(self, job, star, options, log):
        self.job, self.star, self.options, self.log = job, star, options, log
        self.given, self.left = 0, options.faults
        self.done = collections.Counter()  # (kind, role)
        self.at = None                     # when the next one is due
        self.stopped, self.cuts = {}, {}   # (process, until) by name; until by rank
        self.killed = {}                   # by name: the process that was killed last
        self.windows, self.open_windows = collections.defaultdict(list), collections.defaultdict(list)  # of each worker
        self.stood = collections.defaultdict(float)  # seconds that each worker was stopped

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.relieve(float("inf"))

    def tick(self):
        now = time.time()
        self.relieve(now)
        if self.left == 0:
            return
        if self.at is None:
            if self.job.is_training():
                self.plan(now)
        elif now >= self.at and self.job.status()["state"] == "running" and not self.job.ended():
            if self.give(now):
                self.plan(time.time())

    def random(self):
        return random.Random(f"{self.options.seed}/{self.given}")

    def plan(self, now):
        self.at = now + self.random().uniform(*self.options.pause)

    def give(self, now):
        """False: nobody is there whom this fault could hit."""
        chance = self.random()
        chance.random()  # that was the pause
        kind = chance.choices(KINDS, self.options.shares)[0]
        seconds = chance.uniform(*self.options.seconds)
        workers = [f"worker-{rank}" for rank in range(self.options.workers)]
        names = {"kill": ["launcher", "coordinator", *workers], "stop": ["coordinator", *workers], "cut": workers}[kind]
        chance.shuffle(names)
        running = self.job.processes()
        for name in names:
            if getattr(self, kind)(name, running, now, now + seconds):
                self.given, self.left = self.given + 1, self.left - 1
                self.done[kind, name.partition("-")[0]] += 1
                self.note(kind, name, None if kind == "kill" else seconds)
                return True
        return False

    def note(self, what, whom, seconds):
        """A line of the log, which tells what happened when."""
        line = {"time": round(time.time(), 3), "what": what, "whom": whom, "seconds": seconds and round(seconds, 3)}
        self.log.write(json.dumps(line) + "\n")
        self.log.flush()

    # Faults. False: not possible now.

    def kill(self, name, running, now, _):
        if name == "launcher":
            self.job.launcher.kill()
            self.job.launcher.wait()
            self.job.attach()
            return True
        if name not in running or not send(running[name], signal.SIGKILL):
            return False
        self.killed[name] = running[name]
        if self.stopped.pop(name, None):
            self.close(name, "stop", now)
        self.open(name, "kill", now)
        return True

    def stop(self, name, running, now, until):
        if name in self.stopped or name not in running or not send(running[name], signal.SIGSTOP):
            return False
        self.stopped[name] = (running[name], until)
        self.open(name, "stop", now)
        return True

    def cut(self, name, _, now, until):
        rank = rank_of(name)
        if rank in self.cuts:
            return False
        self.star.cut(rank)
        self.cuts[rank] = until
        self.open(name, "cut", now)
        return True

    def relieve(self, now):
        """Ends what has lasted long enough, and stops of processes that are gone."""
        for name, (pid, until) in list(self.stopped.items()):
            if not send(pid, signal.SIGCONT if until <= now else 0) or until <= now:
                del self.stopped[name]
                self.close(name, "stop", time.time())
        for rank, until in list(self.cuts.items()):
            if until <= now:
                self.star.heal(rank)
                del self.cuts[rank]
                self.close(f"worker-{rank}", "cut", time.time())

    # What is known of them.

    def lately(self, rank):
        """The last faults of the worker, in their order."""
        return self.windows[rank][-MANY:]

    def not_over(self, rank):
        self.open_windows[rank] = [window for window in self.open_windows[rank] if window.over is None]
        return self.open_windows[rank]

    def stopped_seconds(self, rank, now):
        """How long the worker has been stopped so far, in all its processes."""
        return self.stood[rank] + sum(now - window.begin for window in self.not_over(rank) if window.kind == "stop")

    def open(self, name, kind, now):
        if name != "coordinator":
            window = Window(kind, now)
            self.windows[rank_of(name)].append(window)
            self.open_windows[rank_of(name)].append(window)

    def close(self, name, kind, now):
        if name == "coordinator":
            return
        window = next(each for each in self.not_over(rank_of(name)) if each.kind == kind and each.end is None)
        window.end = now
        if kind == "stop":
            window.over = now
            self.stood[rank_of(name)] += now - window.begin


def rank_of(name):
    return int(name.partition("-")[2])


def send(pid, number):
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True
