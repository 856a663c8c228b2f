#!/usr/bin/env python3
"""Training over a link of 100 Mb/s, and over one that is cut for a while. Needs root and network namespaces.

usage: tools/network_bench.py RUBATO [STEPS] [ROUNDS] [--model resnet8] [--batch-size 64] [--rate-mbit 100] [--cut 10]

Two namespaces joined by a veth pair: the coordinator and worker 0 in the first, worker 1 in the second. Rounds are interleaved; a table
of medians. Must hold: async-easgd with period 10 keeps 95 % of its samples per second on the limited link; when the link is cut
both workers go on, worker 1 is heard again afterwards, and the run ends by itself. All-reduce is shown beside what the link
allows: the bytes that a step sends, as counted at the link, over its rate.
"""

import argparse
import json
import os
import pathlib
import signal
import statistics
import subprocess
import tempfile
import time

from namespaces import ip, is_possible
from rubato_job import Failures, leave_on_sigterm, read_json, tail_of

ADDRESS = "10.77.0.1"
METHODS = {"async-easgd": ["--coupling", "async-easgd", "--period", "10"], "allreduce": ["--coupling", "allreduce"]}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rubato")
    parser.add_argument("steps", nargs="?", type=int, default=400, help="of each worker")
    parser.add_argument("rounds", nargs="?", type=int, default=3)
    parser.add_argument("--model", default="resnet8")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rate-mbit", type=int, default=100)
    parser.add_argument("--cut", type=float, default=10, help="seconds; 0: leave this part out")
    parser.add_argument("--cut-steps", type=int, help="of each worker while the link is cut; default: enough for it")
    parser.add_argument("--limit", type=float, default=1200, help="seconds after which a job counts as hanging")
    return parser.parse_args()


class Network:
    """Two namespaces and the link between them, for as long as the `with` block lasts."""

    def __init__(self, rate_mbit):
        name = f"rb{os.getpid()}"
        self.spaces, self.ends = [name + "a", name + "b"], [name[-12:] + "va", name[-12:] + "vb"]
        self.rate_mbit, self.limited = rate_mbit, False

    def __enter__(self):
        try:
            for space in self.spaces:
                ip("netns", "add", space)
            ip("link", "add", self.ends[0], "netns", self.spaces[0], "type", "veth", "peer", "name", self.ends[1], "netns",
               self.spaces[1])
            for i in (0, 1):
                ip("-n", self.spaces[i], "addr", "add", f"10.77.0.{i + 1}/24", "dev", self.ends[i])
                ip("-n", self.spaces[i], "link", "set", "lo", "up")
                self.set(i, "up")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for space in self.spaces:  # their devices go with them
            ip("netns", "del", space, check=False)

    def set(self, i, state):
        ip("-n", self.spaces[i], "link", "set", self.ends[i], state)

    def limit(self, wanted):
        if wanted == self.limited:
            return
        self.limited = wanted
        limit = ["tbf", "rate", f"{self.rate_mbit}mbit", "burst", "64kb", "latency", "50ms"] if wanted else []
        for space, end in zip(self.spaces, self.ends):
            subprocess.run(["tc", "-n", space, "qdisc", "add" if wanted else "del", "dev", end, "root", *limit], check=True)

    def bytes_sent(self):
        """By each end so far."""
        all_links = [json.loads(ip("-n", s, "-s", "-j", "link", "show", "dev", e))[0] for s, e in zip(self.spaces, self.ends)]
        return [link["stats64"]["tx"]["bytes"] for link in all_links]


class Processes:
    """Coordinator and two workers, started as torchrun would. Leaving the `with` block ends what still runs."""

    def __init__(self, options, network, folder, name, flags):
        self.run, self.children, self.logs = folder / name, [], []
        keys = folder / f"{name}.keys"
        subprocess.run([options.rubato, "keys", str(keys)], check=True, stdout=subprocess.DEVNULL)
        common = {"WORLD_SIZE": "2", "MASTER_ADDR": ADDRESS, "MASTER_PORT": "29617", "RUBATO_KEYS": str(keys)}
        command = [options.rubato, "train", "--model", options.model, "--batch-size", str(options.batch_size), "--evaluate-every",
                   "-1", "--checkpoint-every", "-1", "--run-dir", str(self.run), *flags]
        for space, role, rank in ((0, "coordinator", 0), (0, "worker", 0), (1, "worker", 1)):
            place = {"RUBATO_ROLE": role, "RANK": str(rank), "LOCAL_RANK": "0" if role == "coordinator" else str(rank)}
            log = folder / f"{name}-{role}-{rank}.log"
            self.logs.append(log)
            with open(log, "wb") as output:
                self.children.append(subprocess.Popen(["ip", "netns", "exec", network.spaces[space], *command], stdout=output,
                                                      stderr=subprocess.STDOUT, env={**os.environ, **common, **place}))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for child in self.children:  # `ip netns exec` becomes the command, so this is rubato itself
            if child.poll() is None:
                child.send_signal(signal.SIGKILL)
            child.wait()

    def wait(self, seconds, until=lambda: False):
        """Whether all have ended, or `until` holds, in so many seconds."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if until() or all(child.poll() is not None for child in self.children):
                return True
            time.sleep(0.1)
        return False

    def status(self):
        return read_json(self.run / "status.json") or {"state": "waiting", "workers": []}

    def workers(self, field):
        return [worker[field] for worker in self.status()["workers"]]

    def check_end(self, failures, name, limit):
        in_time = self.wait(limit)
        codes = [child.poll() for child in self.children]
        failures.check(in_time and codes == [0, 0, 0], f"{name}: exit codes of coordinator, worker 0 and 1: {codes}")
        if codes != [0, 0, 0]:
            print("\n".join(tail_of(log) for log in self.logs), flush=True)
        return codes == [0, 0, 0]


def measure(options, network, folder, method, limited, round_number, failures):
    """Samples per second, and bytes that the busier end of the link sends for a step."""
    network.limit(limited)
    name = f"{method}-{'limited' if limited else 'free'}-{round_number}"
    before = network.bytes_sent()
    with Processes(options, network, folder, name, [*METHODS[method], "--steps", str(options.steps)]) as processes:
        if not processes.check_end(failures, name, options.limit):
            return None
        sent = max(now - then for now, then in zip(network.bytes_sent(), before))
        return read_json(processes.run / "summary.json")["samples_per_second"], sent / options.steps


def bench(options, network, folder, failures):
    results = {(method, limited): [] for method in METHODS for limited in (False, True)}
    for round_number in range(options.rounds):
        for (method, limited), values in results.items():
            value = measure(options, network, folder, method, limited, round_number, failures)
            if value:
                values.append(value)
                state = "limited" if limited else "free"
                print(f"round {round_number + 1}: {method:12} {state:8} {value[0]:9.0f} samples/s", flush=True)
    if all(results.values()):
        report(options, results, failures)


def report(options, results, failures):
    print(f"\n{options.model}, 2 workers, batches of {options.batch_size}, {options.steps} steps, "
          f"medians of {options.rounds} round(s)")
    print(f"{'':12} {'free link':>10} {f'{options.rate_mbit} Mb/s':>10} {'kept':>7} {'bytes/step':>11} "
          f"{'link allows':>12}   samples/s")
    for method in METHODS:
        free, limited = (statistics.median(rate for rate, _ in results[method, state]) for state in (False, True))
        step_bytes = statistics.median(count for _, count in results[method, True])
        seconds = step_bytes * 8 / (options.rate_mbit * 1e6)
        allowed = 2 * options.batch_size / seconds
        print(f"{method:12} {free:10.0f} {limited:10.0f} {limited / free:7.1%} {step_bytes:11.0f} {allowed:12.0f}", flush=True)
        if method == "async-easgd":
            failures.check(limited >= 0.95 * free, f"async-easgd keeps {limited / free:.1%} of its speed, not 95 %")
        else:
            computing = 2 * options.batch_size / free
            print(f"{'':12} a step: {1000 * computing:.1f} ms on the free link; {1000 * seconds:.1f} ms to send its bytes: "
                  f"{computing / (computing + seconds):.1%} would be kept if nothing overlapped")


def cut(options, network, folder, failures):
    """The link goes away for a while in a run of async-easgd."""
    network.limit(False)
    steps = options.cut_steps or cut_steps(options, folder)
    with Processes(options, network, folder, "cut", [*METHODS["async-easgd"], "--steps", str(steps)]) as job:
        job.wait(120, lambda: len(job.workers("step")) == 2 and min(job.workers("step")) > 0)
        if job.status()["state"] != "running":
            failures.check(False, "link cut: the job does not begin, or has ended already: --cut-steps")
            return
        time.sleep(3)
        before = job.workers("step")
        network.set(1, "down")
        try:
            time.sleep(options.cut)
            during = job.status()
        finally:
            network.set(1, "up")
        healed = time.monotonic()
        back = job.wait(30, lambda: job.workers("state")[1:] == ["alive"]) and job.workers("state")[1:] == ["alive"]
        seconds, after = time.monotonic() - healed, job.workers("step")
        in_time = job.check_end(failures, "link cut", options.limit)
        end = job.status()
        report_cut(options, steps, before, during, after, seconds, end)
        failures.check(back, "link cut: worker 1 is not heard again")
        failures.check(during["workers"][0]["step"] > before[0], "link cut: worker 0 stood still")
        check_went_on(options, before, after, seconds, failures)
        if in_time:
            failures.check(end["state"] == "done" and end["deaths"] == 0, f"link cut: {end['state']}, {end['deaths']} deaths")


def report_cut(options, steps, before, during, after, seconds, end):
    print(f"\nlink cut for {options.cut:g} s, async-easgd, {steps} steps")
    for rank in (0, 1):
        then, last = during["workers"][rank], end["workers"][rank]
        print(f"  worker {rank}: step {before[rank]} before, {then['step']} known at the end of the cut ({then['state']}), "
              f"{after[rank]} known {seconds:.1f} s after it, {last['step']} at the end; exchanges {last['exchanges']}, skipped "
              f"{last['exchanges_skipped']}, longest wait {last['longest_wait_seconds']:.2f} s")


def check_went_on(options, before, after, seconds, failures):
    """What worker 1 did meanwhile is known once it is heard again: more than it can have done since then."""
    share = seconds / (options.cut + seconds)
    ratio = (after[1] - before[1]) / max(1, after[0] - before[0])
    failures.check(ratio > max(0.5, 1.2 * share), f"link cut: worker 1 made {ratio:.0%} of worker 0's steps meanwhile")


def cut_steps(options, folder):
    """Enough for the cut and as long again, at the speed that was measured."""
    rates = [read_json(file)["samples_per_second"] for file in folder.glob("async-easgd-free-*/summary.json")]
    if not rates:
        return options.steps
    return int((2.5 * options.cut + 10) * max(rates) / (2 * options.batch_size))


def main():
    options, failures = arguments(), Failures()
    if not is_possible("tc"):
        print("not possible here: needs root, `ip`, `tc` and network namespaces")
        return
    leave_on_sigterm()
    with tempfile.TemporaryDirectory(prefix="rubato-network-") as temporary, Network(options.rate_mbit) as network:
        folder = pathlib.Path(temporary)
        bench(options, network, folder, failures)
        if options.cut > 0:
            cut(options, network, folder, failures)
    failures.leave()


if __name__ == "__main__":
    main()
