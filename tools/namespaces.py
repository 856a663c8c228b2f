"""Networks of namespaces on this machine, for scripts that limit links or cut them. Needs root, `ip` and network namespaces."""

import os
import pathlib
import subprocess


def ip(*words, check=True):
    return subprocess.run(["ip", *words], check=check, capture_output=True, text=True).stdout


def is_possible(*programs):
    """Whether namespaces can be made here, and `programs` are there."""
    if os.geteuid() != 0:
        return False
    name = f"rb{os.getpid()}t"
    try:
        made = subprocess.run(["ip", "netns", "add", name], capture_output=True).returncode == 0
        subprocess.run(["ip", "netns", "del", name], capture_output=True)
        for program in programs:
            subprocess.run([program, "-V"], check=True, capture_output=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        return False
    return made


class Star:
    """A namespace with a bridge, and one for each of `leaves`, joined to it by a link of its own, while the `with` block lasts.

    What runs at the hub reaches all leaves, and they each other, until a leaf's link is cut.
    """

    ADDRESS = "10.77.0.1"  # of the hub

    def __init__(self, leaves):
        name = f"rb{os.getpid()}"
        self.hub, self.leaves = name + "hub", [f"{name}leaf{i}" for i in range(leaves)]

    def __enter__(self):
        try:
            for space in (self.hub, *self.leaves):
                ip("netns", "add", space)
                ip("-n", space, "link", "set", "lo", "up")
            ip("-n", self.hub, "link", "add", "bridge", "type", "bridge", "forward_delay", "0")
            ip("-n", self.hub, "addr", "add", self.ADDRESS + "/24", "dev", "bridge")
            ip("-n", self.hub, "link", "set", "bridge", "up")
            for i, leaf in enumerate(self.leaves):
                ip("link", "add", f"port{i}", "netns", self.hub, "type", "veth", "peer", "name", "uplink", "netns", leaf)
                ip("-n", leaf, "addr", "add", f"10.77.0.{i + 2}/24", "dev", "uplink")
                ip("-n", leaf, "link", "set", "uplink", "up")
                ip("-n", self.hub, "link", "set", f"port{i}", "master", "bridge", "up")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for space in (self.hub, *self.leaves):  # their devices go with them
            ip("netns", "del", space, check=False)

    def cut(self, leaf):
        """As if the cable were pulled: what is on its way is lost, and nobody is told."""
        ip("-n", self.hub, "link", "set", f"port{leaf}", "down")

    def heal(self, leaf):
        ip("-n", self.hub, "link", "set", f"port{leaf}", "up")

    def at_hub(self):
        """Put before a command: it runs at the hub, as the process that was started."""
        return ["ip", "netns", "exec", self.hub]

    def write_hosts(self, file):
        """For `rubato launch --hosts`: a worker at each leaf. The flags that go with it."""
        pathlib.Path(file).write_text("".join(f"{leaf} slots=1\n" for leaf in self.leaves))
        return ["--hosts", str(file), "--listen", self.ADDRESS, "--ssh", "in_namespace.sh"]

    def environment(self):
        """With it the command that --ssh names is found."""
        return {**os.environ, "PATH": f"{pathlib.Path(__file__).resolve().parent}:{os.environ.get('PATH', '')}"}
