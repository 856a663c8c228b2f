"""Steps of rubato's serial schedule against the same steps of a plain PyTorch loop, from the same initial weights.

usage: PYTHON compare_with_pytorch.py COMMAND

COMMAND is the built `rubato`; PYTHON has the PyTorch that it was built with (numpy is not needed). Prints one line per case, "ok - ..." or "not ok - ...", with the largest difference of any
weight or statistic; exits with 1 if one is above the tolerance, or if the weights did not move.
"""

import gzip
import pathlib
import re
import subprocess
import sys
import tempfile
import warnings

warnings.filterwarnings("ignore", message="Failed to initialize NumPy")

import torch
import torch.nn.functional as F
from torch import nn

DATA = pathlib.Path("/usr/share/datasets/fashion-mnist")
BATCH, TOLERANCE = 32, 1e-5


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


class AdamWOfLibtorch(torch.optim.Optimizer):
    """AdamW in the order of operations of libtorch's C++ class. Python's class has rounded otherwise since 2.0 (`lerp_`), and AdamW
    divides by the size of the gradient: where that is nearly zero, a last bit soon decides about a whole step. So Python's class is compared
    over a few steps, and this one over all."""

    def __init__(self, parameters, lr, weight_decay):
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                if not state:
                    state.update(step=0, mean=torch.zeros_like(p), square=torch.zeros_like(p))
                state["step"] += 1
                p.mul_(1 - group["lr"] * group["weight_decay"])
                state["mean"].mul_(0.9).add_(p.grad, alpha=1 - 0.9)
                state["square"].mul_(0.999).addcmul_(p.grad, p.grad, value=1 - 0.999)
                denominator = (state["square"].sqrt() / (1 - 0.999 ** state["step"]) ** 0.5).add_(1e-8)
                p.addcdiv_(state["mean"], denominator, value=-(group["lr"] / (1 - 0.9 ** state["step"])))


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.05, momentum=0.9, weight_decay=5e-4)


def adamw(parameters):
    return torch.optim.AdamW(parameters, lr=0.001, weight_decay=0.01)


def adamw_of_libtorch(parameters):
    return AdamWOfLibtorch(parameters, lr=0.001, weight_decay=0.01)


ADAMW_STEPS = 20 if torch.__version__.startswith("1.") else 3  # see AdamWOfLibtorch

CASES = [
    (Mlp, "mlp", "sgd", sgd, 20),
    (Mlp, "mlp", "adamw", adamw, ADAMW_STEPS),
    (Mlp, "mlp", "adamw", adamw_of_libtorch, 20),
    (ResNet8, "resnet8", "sgd", sgd, 20),
    (ResNet8, "resnet8", "adamw", adamw, ADAMW_STEPS),
    (ResNet8, "resnet8", "adamw", adamw_of_libtorch, 20),
]

FLAGS = {
    "sgd": ["--lr", "0.05", "--momentum", "0.9", "--weight-decay", "5e-4"],
    "adamw": ["--lr", "0.001", "--weight-decay", "0.01"],
}


def read_idx(name, header):
    with gzip.open(DATA / name) as file:
        return torch.frombuffer(bytearray(file.read()), dtype=torch.uint8, offset=header)


def batches(steps):
    images = read_idx("train-images-idx3-ubyte.gz", 16).reshape(-1, 1, 28, 28)
    labels = read_idx("train-labels-idx1-ubyte.gz", 8)
    for i in range(steps):
        part = slice(i * BATCH, (i + 1) * BATCH)
        # In double, then rounded once: a last bit that differs in the input grows a thousandfold in 20 steps of a ResNet.
        yield ((images[part].double() / 255.0 - 0.2860) / 0.3530).float(), labels[part].long()


def run_rubato(command, folder, model, optimizer, steps):
    run = folder / f"{model}-{optimizer}-{steps}"
    subprocess.run(
        [command, "train", "--model", model, "--steps", str(steps), "--batch-size", str(BATCH), "--no-shuffle",
         "--optimizer", optimizer, "--lr-schedule", "constant", "--run-dir", str(run), "--quiet", *FLAGS[optimizer]],
        check=True)
    checkpoints = run / "checkpoint"
    return torch.load(checkpoints / (checkpoints / "latest").read_text().strip() / "weights.pt")


def compare(command, folder, module, model, optimizer, make_optimizer, steps):
    """Largest difference to PyTorch, and how far the weights moved."""
    initial = run_rubato(command, folder, model, optimizer, 0)
    network = module()
    network.load_state_dict(initial)
    step = make_optimizer(network.parameters())
    for inputs, targets in batches(steps):
        step.zero_grad()
        F.cross_entropy(network(inputs), targets).backward()
        step.step()
    trained = run_rubato(command, folder, model, optimizer, steps)
    ours = network.state_dict()
    difference = max((trained[name].double() - ours[name].double()).abs().max().item() for name in ours)
    moved = max((trained[name] - initial[name]).abs().max().item() for name in ours if ours[name].is_floating_point())
    return difference, moved


def main():
    torch.set_num_threads(1)
    built_with = subprocess.run([sys.argv[1], "--version"], check=True, capture_output=True, text=True).stdout
    version = re.match(r"\d+\.\d+", torch.__version__).group()  # Debian's says 1.13.0a0
    if f"libtorch {version}." not in built_with:
        print(f"not ok - this Python has PyTorch {version}, but the command was built with another:\n{built_with}")
        return 1
    failed = False
    for module, model, optimizer, make_optimizer, steps in CASES:
        with tempfile.TemporaryDirectory() as folder:
            difference, moved = compare(sys.argv[1], pathlib.Path(folder), module, model, optimizer, make_optimizer, steps)
        good = difference <= TOLERANCE and moved > 100 * TOLERANCE
        failed = failed or not good
        print(f"{'ok' if good else 'not ok'} - {model} with {make_optimizer.__name__}: {steps} steps differ from PyTorch by at "
              f"most {difference:.2g}, weights moved by {moved:.2g}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
