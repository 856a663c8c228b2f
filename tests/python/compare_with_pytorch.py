"""20 steps of rubato's serial schedule against 20 steps of a plain PyTorch loop, from the same initial weights.

usage: /usr/bin/python3 compare_with_pytorch.py COMMAND

COMMAND is the built `rubato`. Prints one line per case, "ok - ..." or "not ok - ...", with the largest difference of any
weight or statistic; exits with 1 if one is above the tolerance, or if the weights did not move.
"""

import gzip
import pathlib
import subprocess
import sys
import tempfile

import numpy
import torch
import torch.nn.functional as F
from torch import nn

DATA = pathlib.Path("/usr/share/datasets/fashion-mnist")
STEPS, BATCH, TOLERANCE = 20, 32, 1e-5


class Mlp(nn.Module):
    def __init__(self):
        super().__init__()
        for name, sizes in {"fc1": (784, 256), "fc2": (256, 256), "fc3": (256, 10)}.items():
            self.add_module(name, nn.ModuleDict({"linear": nn.Linear(*sizes)}))

    def forward(self, x):
        x = F.relu(self.fc1["linear"](x.flatten(1)))
        x = F.relu(self.fc2["linear"](x))
        return self.fc3["linear"](x)


class Residual(nn.Module):
    """Basic block of He et al. 2015 with the parameter-free shortcut (option A)."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.stride, self.missing = stride, outputs - inputs
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)

    def forward(self, x):
        y = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        shortcut = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.missing))
        return F.relu(y + shortcut)


class ResNet8(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.ModuleDict({"conv": nn.Conv2d(1, 16, 3, 1, 1, bias=False), "norm": nn.BatchNorm2d(16)})
        self.stage1 = nn.ModuleList([Residual(16, 16, 1)])
        self.stage2 = nn.ModuleList([Residual(16, 32, 2)])
        self.stage3 = nn.ModuleList([Residual(32, 64, 2)])
        self.head = nn.ModuleDict({"linear": nn.Linear(64, 10)})

    def forward(self, x):
        x = F.relu(self.stem["norm"](self.stem["conv"](x)))
        x = self.stage3[0](self.stage2[0](self.stage1[0](x)))
        return self.head["linear"](x.mean((2, 3)))


CASES = [
    (Mlp, "mlp", "sgd"),
    (Mlp, "mlp", "adamw"),
    (ResNet8, "resnet8", "sgd"),
    (ResNet8, "resnet8", "adamw"),
]


def optimizer_of(name, parameters):
    if name == "sgd":
        return torch.optim.SGD(parameters, lr=0.05, momentum=0.9, weight_decay=5e-4)
    return torch.optim.AdamW(parameters, lr=0.001, weight_decay=0.01)


FLAGS = {
    "sgd": ["--lr", "0.05", "--momentum", "0.9", "--weight-decay", "5e-4"],
    "adamw": ["--lr", "0.001", "--weight-decay", "0.01"],
}


def read_idx(name, header):
    with gzip.open(DATA / name) as file:
        return numpy.frombuffer(file.read(), numpy.uint8, offset=header)


def batches():
    images = read_idx("train-images-idx3-ubyte.gz", 16).reshape(-1, 1, 28, 28)
    labels = read_idx("train-labels-idx1-ubyte.gz", 8)
    for i in range(STEPS):
        part = slice(i * BATCH, (i + 1) * BATCH)
        # In double, then rounded once: a last bit that differs in the input grows a thousandfold in 20 steps of a ResNet.
        pixels = torch.from_numpy(((images[part] / 255.0 - 0.2860) / 0.3530).astype(numpy.float32))
        yield pixels, torch.from_numpy(labels[part].astype(numpy.int64))


def run_rubato(command, folder, model, optimizer, steps):
    run = folder / f"{model}-{optimizer}-{steps}"
    subprocess.run(
        [command, "train", "--model", model, "--steps", str(steps), "--batch-size", str(BATCH), "--no-shuffle",
         "--optimizer", optimizer, "--lr-schedule", "constant", "--run-dir", str(run), "--quiet", *FLAGS[optimizer]],
        check=True)
    return torch.load(run / "checkpoint" / f"step-{steps:09}" / "weights.pt")


def compare(command, folder, module, model, optimizer):
    """Largest difference to PyTorch, and how far the weights moved."""
    initial = run_rubato(command, folder, model, optimizer, 0)
    network = module()
    network.load_state_dict(initial)
    step = optimizer_of(optimizer, network.parameters())
    for inputs, targets in batches():
        step.zero_grad()
        F.cross_entropy(network(inputs), targets).backward()
        step.step()
    trained = run_rubato(command, folder, model, optimizer, STEPS)
    ours = network.state_dict()
    difference = max((trained[name].double() - ours[name].double()).abs().max().item() for name in ours)
    moved = max((trained[name] - initial[name]).abs().max().item() for name in ours if ours[name].is_floating_point())
    return difference, moved


def main():
    torch.set_num_threads(1)
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        for module, model, optimizer in CASES:
            difference, moved = compare(sys.argv[1], pathlib.Path(folder), module, model, optimizer)
            good = difference <= TOLERANCE and moved > 100 * TOLERANCE
            failed = failed or not good
            print(f"{'ok' if good else 'not ok'} - {model} with {optimizer}: {STEPS} steps differ from PyTorch by at "
                  f"most {difference:.2g}, weights moved by {moved:.2g}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
