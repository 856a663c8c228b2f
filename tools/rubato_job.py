"""What the scripts beside this one share: jobs of several processes, and run folders that others are writing."""

import ctypes
import json
import os
import pathlib
import re
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


def adopt_orphans():
    """Processes whose launcher dies become children of this one, which then learns how they end."""
    set_child_subreaper = 36
    ctypes.CDLL(None).prctl(set_child_subreaper, 1, 0, 0, 0)


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
    """`rubato launch` and all that it started. Leaving the `with` block ends whatever still runs.

    With a `star` (namespaces.py) the launcher and the coordinator run at its hub and each worker at a leaf.
    """

    def __init__(self, rubato, run, workers, flags, restarts=3, star=None):
        self.rubato, self.run, self.restarts, self.star = rubato, pathlib.Path(run), str(restarts), star
        self.log = self.run.with_name(self.run.name + ".log")
        self.launcher = None
        self.seen, self.endings = {}, {}  # names and exit statuses, by process
        hosts = star.write_hosts(self.run.with_name(self.run.name + ".hosts")) if star else []
        self.start(["-n", str(workers), *hosts, "--", "train", *flags, "--run-dir", str(self.run)])

    def start(self, words):
        place = self.star.at_hub() if self.star else []
        with open(self.log, "ab") as log:
            self.launcher = subprocess.Popen([*place, self.rubato, "launch", "--restarts", self.restarts, *words],
                                             stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                                             start_new_session=True, env=self.star.environment() if self.star else None)

    def attach(self):
        self.start(["--attach", str(self.run)])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.launcher.poll() is None:
            self.launcher.kill()
            self.launcher.wait()
        kill_all(self.run)
        self.collect_orphans()

    def status(self):
        return read_json(self.run / "status.json") or {"state": "waiting", "workers": [], "time": 0}

    def summary(self):
        return read_json(self.run / "summary.json") or {}

    def record(self):
        """Of each process, as the launcher wrote it last."""
        return (read_json(self.run / "job.json") or {"processes": []})["processes"]

    def processes(self):
        return processes_of(self.run)

    def is_training(self):
        """Whether every worker has begun."""
        status = self.status()
        return status["state"] == "running" and all(worker["samples"] > 0 for worker in status["workers"])

    def ended(self):
        return self.launcher.poll() is not None

    def wait(self, seconds, each=lambda: None, until=lambda: False, pause=0.1):
        """Calls `each` now and then until the job has ended or `until` holds. False: neither, in so many seconds."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            each()
            if self.ended() or until():
                return True
            time.sleep(pause)
        return False

    def collect_orphans(self):
        """Learns how those ended that have come to this process (`adopt_orphans`)."""
        for process in self.record():
            self.seen.setdefault(process["pid"], process["name"])
        for pid in self.seen.keys() - self.endings.keys():
            try:
                ended, status = os.waitpid(pid, os.WNOHANG)
                if ended:
                    code = os.waitstatus_to_exitcode(status)
                    self.endings[pid] = f"exit {code}" if code >= 0 else f"signal {-code}"
            except ChildProcessError:  # its launcher learns it
                pass

    def status_text(self):
        return subprocess.run([self.rubato, "status", str(self.run)], capture_output=True, text=True).stdout

    def check_end(self, failures, name, in_time):
        """The job has ended, by itself and well."""
        code = self.launcher.poll() if in_time else None
        failures.check(in_time and code == 0, f"{name}: " + (f"exit {code}" if in_time else "does not end"))
        if code != 0:
            print(f"{self.status_text()}\n{tail_of(self.log)}", flush=True)
        return code == 0

    def last_endings(self):
        """How each process of the job ended, by name: "exit 0"; None while it runs, or where nobody knows."""
        self.collect_orphans()
        return {each["name"]: self.endings.get(each["pid"]) or each["exited"] for each in self.record()}

    def all_endings(self):
        """Of all processes that this process or a launcher has seen end, with their names: ("worker-2", "signal 9")."""
        said = re.findall(r"^rubato: (\S+) ended \(((?:exit|signal) \d+)\)", self.log.read_text(errors="replace"), re.MULTILINE)
        return said + [(self.seen[pid], ending) for pid, ending in self.endings.items()]
