"""What the scripts beside this one share: jobs of several processes, and run folders that others are writing."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time


def read_json(file):
    """None while the file is not there."""
    try:
        return json.loads(pathlib.Path(file).read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None


def is_running(pid, start_time):
    """Whether the process is still the one that was started then: numbers are given out again."""
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return fields[0] != "Z" and int(fields[19]) == start_time


def tail_of(file, lines=15):
    return "\n".join(pathlib.Path(file).read_text(errors="replace").splitlines()[-lines:])


def processes_of(run):
    """The process of each name that runs now, of a job that `rubato launch` started."""
    job = read_json(pathlib.Path(run) / "job.json") or {"processes": []}
    return {each["name"]: each["pid"] for each in job["processes"] if is_running(each["pid"], each["start_time"])}


def kill_all(run):
    for pid in processes_of(run).values():
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def leave_on_sigterm():
    """Through every `with` block, which then ends what it has started."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


class Failures:
    """What did not hold; a script exits with 1 if anything is in it."""

    def __init__(self):
        self.sentences = []

    def check(self, holds, sentence):
        if not holds:
            self.sentences.append(sentence)
            print(f"FAILED: {sentence}", flush=True)

    def leave(self):
        print(f"\n{len(self.sentences)} of what must hold does not" if self.sentences else "\neverything that must hold does")
        sys.exit(1 if self.sentences else 0)


class Job:
    """`rubato launch` and all that it started. Leaving the `with` block ends whatever still runs."""

    def __init__(self, rubato, run, workers, flags, restarts=3):
        self.rubato, self.run, self.restarts = rubato, pathlib.Path(run), str(restarts)
        self.log = self.run.with_name(self.run.name + ".log")
        self.launcher = None
        self.start(["-n", str(workers), "--", "train", *flags, "--run-dir", str(self.run)])

    def start(self, words):
        with open(self.log, "ab") as log:
            self.launcher = subprocess.Popen([self.rubato, "launch", "--restarts", self.restarts, *words],
                                             stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                                             start_new_session=True)

    def attach(self):
        self.start(["--attach", str(self.run)])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.launcher.poll() is None:
            self.launcher.kill()
            self.launcher.wait()
        kill_all(self.run)

    def status(self):
        return read_json(self.run / "status.json") or {"state": "waiting", "workers": [], "time": 0}

    def summary(self):
        return read_json(self.run / "summary.json") or {}

    def processes(self):
        return processes_of(self.run)

    def is_training(self):
        """Whether every worker has begun."""
        status = self.status()
        return status["state"] == "running" and all(worker["samples"] > 0 for worker in status["workers"])

    def ended(self):
        return self.launcher.poll() is not None

    def wait(self, seconds, each=lambda: None, until=lambda: False):
        """Calls `each` now and then until the job has ended or `until` holds. False: neither, in so many seconds."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            each()
            if self.ended() or until():
                return True
            time.sleep(0.1)
        return False

    def status_text(self):
        return subprocess.run([self.rubato, "status", str(self.run)], capture_output=True, text=True).stdout

    def check_end(self, failures, name, in_time):
        """The job has ended, by itself and well."""
        code = self.launcher.poll() if in_time else None
        failures.check(in_time and code == 0, f"{name}: " + (f"exit {code}" if in_time else "does not end"))
        if code != 0:
            print(f"{self.status_text()}\n{tail_of(self.log)}", flush=True)
        return code == 0
