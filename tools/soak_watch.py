"""What tools/soak.py sees of a job: from the status that its coordinator writes, and from what the system counts for each process.

A worker survives while it has been let in and is neither killed, stopped nor cut off. After a stop it survives again at once, after a
cut when the coordinator hears from it, after a kill when the new process has made a step.

**Own time** of a worker: the processor time of all its threads, and the time in which the thread that trains waits for something
else than a processor. Time in which it could run and has no processor is left out: there the processors belong to others, such as
processes that start. So samples per second of own time fall when a worker waits for others or does more work for a step, and are
the plain samples per second where everybody has a processor.
"""

import bisect
import os
import pathlib
import time

PAUSE = 0.1        # seconds from look to look
FRESH = 2.5        # a status is written every second
AT_WORK = 0.2      # of a look's time; whose thread trained less has waited
LONG = 0.7         # seconds; whoever waits longer is noted in the log
CLOCK = 0.5        # seconds that what was on its way in a cut may come late
CERTAIN = 0.5      # seconds of processor time by which the thread that trains is known


class Count:
    """What some workers did in some intervals."""

    def __init__(self):
        self.samples = self.seconds = self.own = self.expected = self.waited = 0

    def add(self, samples, seconds, own, expected, waited):
        self.samples, self.seconds, self.own = self.samples + samples, self.seconds + seconds, self.own + own
        self.expected, self.waited = self.expected + expected, self.waited + waited

    def rate(self):
        return self.samples / self.own if self.own > 0 else float("nan")

    def kept(self):
        """Of the samples that the same own time gives undisturbed."""
        return self.samples / self.expected if self.expected > 0 else float("nan")

    def waiting(self):
        return self.waited / self.seconds if self.seconds > 0 else float("nan")


class Worker:
    """One process of a worker."""

    def __init__(self, rank, pid, stood):
        self.rank, self.pid, self.stood = rank, pid, stood
        self.begin = self.now = time.time()
        self.threads = {}       # of each: seconds on a processor and in the queue for one
        self.trainer, self.is_certain, self.trainer_ended = None, False, False
        self.cpu = self.expected = 0
        self.series = []        # of (time, own time, expected samples, time waited, time not stopped)
        self.let_in = self.last = None
        self.waits_since, self.is_noted = None, False
        self.step, self.still = None, 0

    def look(self, stood, rate):
        """False: it is gone. `stood`: seconds that it was stopped; `rate`: samples for a second of own time, undisturbed."""
        before, threads = self.threads, threads_of(self.pid)
        if not threads:
            return False
        then, self.now = self.now, time.time()
        self.cpu += sum(max(0, cpu - before.get(thread, (0, 0))[0]) for thread, (cpu, _) in threads.items())
        self.threads = threads
        self.choose_trainer()
        if self.trainer not in threads:
            return True
        cpu, queue = threads[self.trainer]
        present = self.now - self.begin - (stood - self.stood)
        waited = present - cpu - queue
        own = self.cpu + waited
        self.expected += rate * (own - (self.series[-1][1] if self.series else own))
        self.series.append((self.now, own, self.expected, waited, present))
        was = before.get(self.trainer, (0, 0))
        works = cpu + queue - sum(was) > AT_WORK * (self.now - then)
        self.waits_since = None if works or is_runnable(self.pid, self.trainer) else self.waits_since or then
        return True

    def choose_trainer(self):
        """Of all threads but the first, which reads the data, the one that has computed most."""
        if self.is_certain:
            self.trainer_ended = self.trainer_ended or self.trainer not in self.threads
            return
        others = {thread: cpu for thread, (cpu, _) in self.threads.items() if thread != self.pid}
        best = max(others, key=others.get, default=None)
        if best != self.trainer:
            self.trainer, self.series = best, []
        self.is_certain = self.let_in is not None and others.get(best, 0) > CERTAIN

    def at(self, when):
        """What `series` says of that time; nothing before the first look."""
        after = bisect.bisect_left(self.series, (when,))
        if after == len(self.series) and self.series and when - self.series[-1][0] < PAUSE:
            return self.series[-1][1:]
        if after in (0, len(self.series)):
            return None
        (begin, *first), (end, *last) = self.series[after - 1:after + 1]
        share = (when - begin) / (end - begin)
        return [a + share * (b - a) for a, b in zip(first, last)]

    def forget(self, before):
        del self.series[:max(0, bisect.bisect_left(self.series, (before,)) - 1)]


def threads_of(pid):
    """Seconds on a processor and seconds in the queue for one, of each thread."""
    threads = {}
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/schedstat", "rb") as file:
                cpu, queue, _ = file.read().split()
            threads[int(thread)] = (int(cpu) * 1e-9, int(queue) * 1e-9)
    except (FileNotFoundError, ProcessLookupError):  # it ends
        return threads
    return threads


def is_runnable(pid, thread):
    try:
        return pathlib.Path(f"/proc/{pid}/task/{thread}/stat").read_text().rpartition(")")[2].split()[0] == "R"
    except (FileNotFoundError, ProcessLookupError):
        return False


class Watch:
    """A whole job. `tick` wants to be called often. `rate_of`: undisturbed samples for a second of own time, by the workers that run."""

    def __init__(self, job, faults, rate_of=lambda running: 1):
        self.job, self.faults, self.rate_of = job, faults, rate_of
        self.next, self.written = 0, 0
        self.workers, self.rows, self.coordinators = {}, {}, {}  # by rank and process; their last rows; statuses by process
        self.survivors, self.cut_off = Count(), Count()
        self.longest_seen = self.longest_told = 0  # waits of survivors: of the thread that trains; as the worker counts them
        self.longest_still = self.longest_start = self.longest_silence = 0
        self.last_look, self.last_collect = time.time(), 0
        self.coordinator, self.coordinator_silent = None, 0
        self.moved = time.time()  # anybody

    def tick(self):
        now = time.time()
        if now < self.next:
            return
        self.next = now + PAUSE
        running, status = self.job.processes(), self.job.status()
        passed, self.last_look = now - self.last_look, now
        if now - self.last_collect > 0.5:
            self.last_collect = now
            self.job.collect_orphans()
        self.look_at_processes(running)
        fresh = status["time"] > self.written
        if fresh:
            self.written = status["time"]
            self.read(status)
        self.look_at_coordinator(running, status, now, passed)
        for key, worker in self.workers.items():
            self.look_at_waits(worker, now)
            self.look_at_steps(worker, now, passed)

    def look_at_processes(self, running):
        ranks = {int(name[7:]): pid for name, pid in running.items() if name != "coordinator"}
        at_work = sum(f"worker-{rank}" not in self.faults.stopped for rank in ranks)
        for rank, pid in ranks.items():
            if (rank, pid) not in self.workers:
                self.workers[rank, pid] = Worker(rank, pid, self.faults.stopped_seconds(rank, time.time()))
        for key, worker in list(self.workers.items()):
            if ranks.get(worker.rank) != worker.pid or not worker.look(
                    self.faults.stopped_seconds(worker.rank, time.time()), self.rate_of(max(1, at_work))):
                del self.workers[key]

    # The status.

    def read(self, status):
        if "coordinator" in status:
            self.coordinators[status["coordinator"]["pid"]] = status
        for row in status["workers"]:
            key = (row["rank"], row["pid"])
            # A coordinator that has just begun knows nothing of its workers' figures yet.
            if row["pid"] == 0 or row["samples"] == 0:
                continue
            self.rows[key] = row
            if key in self.workers:
                self.heard(self.workers[key], row, status["time"] - row["silent_seconds"])

    def heard(self, worker, row, when):
        if row["state"] != "alive":
            if row["state"] == "finished":
                worker.trainer_ended = True
            return
        if not worker.let_in:
            worker.let_in = when
            self.longest_start = max(self.longest_start, when - worker.begin)
        for window in self.faults.not_over(worker.rank):
            window.heard(when, worker.begin)
        last = worker.last
        if last and when > last[0]:
            self.count(worker, row, last, when, self.faults.lately(worker.rank))
        if not last or when > last[0]:
            worker.last = (when, row["samples"], row["longest_wait_seconds"], worker.at(when))
            worker.forget(when)

    def count(self, worker, row, last, when, windows):
        """What the worker did from one word of it to the next."""
        begin, samples, longest, before = last
        after = worker.at(when)
        if before and after:
            cut_off = any(window.kind == "cut" and window.touches(begin - CLOCK, when) for window in windows)
            own, expected, waited, present = (b - a for a, b in zip(before, after))
            (self.cut_off if cut_off else self.survivors).add(row["samples"] - samples, present, own, expected, waited)
        told = row["longest_wait_seconds"]
        began = min(begin, when) - told  # the earliest that a wait that has ended since can have begun
        if told > longest and began > worker.let_in and not any(window.touches(began, when) for window in windows):
            self.longest_told = max(self.longest_told, told)
            if told > LONG:
                self.faults.note("has waited", f"worker-{worker.rank}", told)

    # From look to look.

    def survives(self, worker):
        return worker.let_in and not worker.trainer_ended and not self.faults.not_over(worker.rank)

    def look_at_waits(self, worker, now):
        if not self.survives(worker):
            worker.waits_since = None
        if not worker.waits_since:
            worker.is_noted = False
            return
        seconds = now - worker.waits_since
        self.longest_seen = max(self.longest_seen, seconds)
        if seconds > LONG and not worker.is_noted:
            worker.is_noted = True
            self.faults.note("waits", f"worker-{worker.rank}", seconds)

    def look_at_coordinator(self, running, status, now, passed):
        """How long it has said nothing although it could."""
        pid = running.get("coordinator")
        if pid is None or "coordinator" in self.faults.stopped:
            self.coordinator_silent = 0
            return
        told = status.get("coordinator", {}).get("pid") == pid and now - status["time"] < FRESH
        self.coordinator_silent = 0 if told or pid != self.coordinator else self.coordinator_silent + passed
        self.coordinator = pid
        self.longest_silence = max(self.longest_silence, self.coordinator_silent)

    def look_at_steps(self, worker, now, passed):
        """How long it has made no step, as far as that can be known: while its coordinator writes, and nothing is done to it."""
        row = self.rows.get((worker.rank, worker.pid))
        lasting = any(window.end is None and window.kind != "kill" for window in self.faults.not_over(worker.rank))
        if row is None or row["step"] != worker.step or lasting or not worker.let_in or worker.trainer_ended:
            if row is not None and row["step"] != worker.step:
                worker.step, self.moved = row["step"], now
            worker.still = 0
        elif now - self.written < FRESH:
            worker.still += passed
            self.longest_still = max(self.longest_still, worker.still)

    # For reports.

    def seconds_without_a_step(self):
        return time.time() - self.moved

    def total(self, field):
        return sum(row[field] for row in self.rows.values())

    def of_job(self, field):
        return max((status[field] for status in self.coordinators.values()), default=0)
