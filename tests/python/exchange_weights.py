"""Weights between rubato and PyTorch: what `torch.save(model.state_dict(), path)` writes is read, and `torch.load(path)` opens what rubato writes.

usage: PYTHON exchange_weights.py COMMAND

COMMAND is the built `rubato`; PYTHON has any PyTorch since 1.13 (numpy is not needed). Prints one line per case, "ok - ..." or
"not ok - ..."; exits with 1 if one is not, with 77 and the reason if there is no PyTorch.
"""

import collections
import json
import os
import pathlib
import struct
import subprocess
import sys
import tempfile
import warnings

warnings.filterwarnings("ignore")

try:
    import torch
except ImportError as error:
    print(f"skipped: {sys.executable} has no PyTorch ({error})")
    sys.exit(77)

import torch.nn.functional as F
from torch import nn

SAFE = int(torch.__version__.split(".")[0]) >= 2  # PyTorch 1.13 has weights_only as well, but reads fewer types with it


class Mlp(nn.Module):
    def __init__(self):
        super().__init__()
        for name, sizes in {"fc1": (784, 16), "fc2": (16, 16), "fc3": (16, 10)}.items():
            self.add_module(name, nn.ModuleDict({"linear": nn.Linear(*sizes)}))

    def forward(self, x):
        x = F.relu(self.fc1["linear"](x.flatten(1)))
        x = F.relu(self.fc2["linear"](x))
        return self.fc3["linear"](x)


class Other:
    def __reduce__(self):
        return (os.mkdir, ("a-folder-that-nobody-wants",))


def write_data(folder):
    for name, samples in {"train": 40, "t10k": 20}.items():
        labels = [i * 7 % 10 for i in range(samples)]
        images = bytes((i * 31 + p * 17 + p * p) % 150 + (100 if p // 84 == labels[i] else 0) for i in range(samples) for p in range(784))
        (folder / f"{name}-images-idx3-ubyte").write_bytes(struct.pack(">4I", 0x803, samples, 28, 28) + images)
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 0x801, samples) + bytes(labels))


class Referee:
    def __init__(self, command, folder):
        self.command, self.folder, self.failed, self.runs = command, folder, False, 0
        self.data = ["--data", "mnist", "--data-dir", str(folder)]

    def say(self, good, sentence):
        self.failed = self.failed or not good
        print(f"{'ok' if good else 'not ok'} - {sentence}", flush=True)

    def run(self, *arguments):
        return subprocess.run([self.command, *arguments], capture_output=True, text=True)

    def train(self, steps, *more, model=("mlp", "--width", "16")):
        """The folder of the new run's checkpoint."""
        self.runs += 1
        run = self.folder / f"run{self.runs}"
        done = self.run("train", *self.data, "--model", *model, "--batch-size", "10", "--steps", str(steps), "--lr-schedule", "constant", "--run-dir", str(run), "--quiet", *more)
        if done.returncode != 0:
            raise RuntimeError(done.stderr)
        return run / "checkpoint" / (run / "checkpoint" / "latest").read_text().strip()

    def is_read(self, what, path, expected):
        """Through --init-from, out again by a plain torch.load: the same tensors; and through eval."""
        try:
            loaded = torch.load(self.train(0, "--init-from", str(path)) / "weights.pt")
        except Exception as error:
            return self.say(False, f"{what}: {error}")
        same = list(loaded) == list(expected) and all(torch.equal(loaded[name], expected[name].detach().float()) for name in expected)
        evaluated = self.run("eval", *self.data, "--model", "mlp", "--width", "16", "--checkpoint", str(path), "--json")
        self.say(same and evaluated.returncode == 0 and "test_loss" in json.loads(evaluated.stdout or "{}"),
                 f"{what}: {'every value as it was saved' if same else 'other values'}; eval {evaluated.stderr or 'reads it'}")

    def is_refused(self, what, path, *parts):
        done = self.run("eval", *self.data, "--model", "mlp", "--width", "16", "--checkpoint", str(path))
        good = done.returncode == 3 and done.stderr.count("\n") == 1 and all(part in done.stderr for part in [str(path), *parts])
        self.say(good, f"{what}: exit {done.returncode}, {done.stderr.strip()}")


def opens(referee):
    """What rubato writes, with the defaults of this PyTorch and with weights_only, and into a module."""
    for model in [("mlp", "--width", "16"), ("resnet8",)]:
        path = referee.train(2, model=model) / "weights.pt"
        model = model[0]
        try:
            plain = torch.load(path)
            safe = torch.load(path, weights_only=True) if SAFE else plain
        except Exception as error:
            referee.say(False, f"{model}: torch.load refuses weights.pt: {str(error).splitlines()[0]}")
            continue
        good = isinstance(plain, dict) and all(type(name) is str and type(value) is torch.Tensor for name, value in plain.items())
        good = good and list(plain) == list(safe) and not any(value.requires_grad for value in plain.values())
        if model == "mlp":
            good = good and str(Mlp().load_state_dict(plain)) == "<All keys matched successfully>"
        else:
            good = good and plain["stem.norm.num_batches_tracked"].dtype == torch.int64
        referee.say(good, f"{model}: torch.load(path) gives {len(plain)} tensors by name")


def read(referee):
    torch.manual_seed(1)
    state, path = Mlp().state_dict(), referee.folder / "saved.pt"
    for protocol in range(1, 6):
        torch.save(state, path, pickle_protocol=protocol)
        referee.is_read(f"state_dict, protocol {protocol}", path, state)
    torch.save(state, path, _use_new_zipfile_serialization=False)
    referee.is_read("state_dict in the form of before 1.6", path, state)
    with open(path, "wb") as file:
        torch.save(dict(state), file)
    referee.is_read("plain dictionary, through a file object", path, state)
    parameters = collections.OrderedDict(Mlp().named_parameters())
    torch.save(parameters, path)
    referee.is_read("parameters instead of tensors", path, parameters)
    for dtype in (torch.float64, torch.float16, torch.bfloat16):
        converted = {name: value.to(dtype) for name, value in state.items()}
        torch.save(converted, path)
        referee.is_read(f"{dtype}", path, converted)
    views = dict(state)
    views["fc1.linear.weight"] = torch.randn(784, 20).t()[2:18]
    views["fc2.linear.bias"] = views["fc1.linear.weight"][:, 3]
    for new in (True, False):
        torch.save(views, path, _use_new_zipfile_serialization=new)
        referee.is_read(f"views that share memory, {'zip' if new else 'of before 1.6'}", path, views)
    path = referee.train(2) / "weights.pt"
    referee.is_read("rubato's own", path, torch.load(path))


def refuse(referee):
    path = referee.folder / "wrong.pt"
    state = Mlp().state_dict()
    optimizer = torch.optim.SGD(Mlp().parameters(), lr=0.1)
    for what, value, parts in [
        ("whole module", Mlp(), ["Mlp", "model.state_dict()"]),
        ("training state", {"epoch": 3, "state_dict": state}, ["'epoch'", "model.state_dict()"]),
        ("optimizer", optimizer.state_dict(), ["model.state_dict()"]),
        ("list", list(state.values()), ["model.state_dict()"]),
        ("one tensor", state["fc1.linear.bias"], ["model.state_dict()"]),
        ("sparse tensor", {**state, "fc1.linear.bias": torch.ones(16).to_sparse()}, ["'fc1.linear.bias'"]),
        ("code that runs", {**state, "fc1.linear.bias": Other()}, ["'fc1.linear.bias'", "mkdir"]),
        ("another shape", {**state, "fc1.linear.bias": torch.ones(17)}, ["'fc1.linear.bias'", "[17]"]),
        ("one tensor less", {name: value for name, value in state.items() if name != "fc3.linear.bias"}, ["'fc3.linear.bias'"]),
        ("one tensor more", {**state, "fc4.linear.bias": torch.ones(10)}, ["'fc4.linear.bias'"]),
    ]:
        for new in (True, False):
            torch.save(value, path, _use_new_zipfile_serialization=new)
            referee.is_refused(f"{what}{'' if new else ', before 1.6'}", path, *parts)
    torch.jit.save(torch.jit.script(Mlp().fc1["linear"]), path)
    referee.is_refused("compiled module", path, "model.state_dict()")
    for new in (True, False):
        torch.save(state, path, _use_new_zipfile_serialization=new)
        whole = path.read_bytes()
        for part in (0.1, 0.5, 0.99):
            path.write_bytes(whole[: int(part * len(whole))])
            referee.is_refused(f"{part:.0%} of a file{'' if new else ', before 1.6'}", path)
    for content in (b"", b"\0", b"hello\n", b"PK\3\4"):
        path.write_bytes(content)
        referee.is_refused(f"{content}", path)
    if pathlib.Path("a-folder-that-nobody-wants").exists():
        referee.say(False, "a file of weights has run code")


def main():
    command = os.path.abspath(sys.argv[1])
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        write_data(folder)
        os.chdir(folder)
        referee = Referee(command, folder)
        opens(referee)
        read(referee)
        refuse(referee)
    return 1 if referee.failed else 0


if __name__ == "__main__":
    sys.exit(main())
