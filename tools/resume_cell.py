"""What a cell of tools/resume_matrix.py is: which flags, how many processes, what is expected.

Runs are tiny: `mlp` of width 16 on 200 samples that this file makes, 13 batches per epoch, 4 epochs, the rate falling every 1.5
epochs.
"""

import collections
import random
import struct

Cell = collections.namedtuple("Cell", "schedule coupling layout workers moment")

SAMPLES, BATCH, EPOCHS = 200, 16, 4
BATCHES = -(-SAMPLES // BATCH)  # of an epoch; the last one is short
RATE_EPOCHS = 1.5               # the rate falls in the middle of the second epoch and at the end of the third
REPLICAS = 2
STAGES = 2

STAGED = ("ddg", "features-replay", "fdg", "dni", "gpipe", "1f1b")
FIXED_SCHEDULES = ("serial", *STAGED)  # whose bits do not depend on timing
FIXED_COUPLINGS = ("none", "allreduce", "easgd", "local-sgd", "admm")
FREE_COUPLINGS = ("async-easgd", "eamsgd", "downpour", "adownpour", "mvadownpour", "lap")  # workers come and go
SHARDED = ("allreduce", "local-sgd", "lap")      # replicas share one order of the data
WITH_PERIOD = ("easgd", "async-easgd", "eamsgd", "downpour", "adownpour", "mvadownpour", "local-sgd", "lap")
LEAST_REPLICAS = {"admm": 2, "lap": 2}
REFUSALS = {"other-data": 3, "other-text": 3, "edited": 2}
ROLES = ("worker-0", "worker-1", "forward-0", "backward-0",
         *(f"{name}-{stage}" for name in ("ddg", "fr", "fdg", "dni", "gpipe", "1f1b") for stage in (0, 1)))


def write_data(folder):
    """data, other: IDX files of 200 + 50 images that a small network can learn; text, other.txt: the same letters."""
    for name, seed in (("data", 1), ("other", 2)):
        stream = random.Random(seed)
        (folder / name).mkdir()
        for prefix, count in (("train", SAMPLES), ("t10k", 50)):
            images, labels = bytearray(struct.pack(">4I", 0x803, count, 28, 28)), bytearray(struct.pack(">2I", 0x801, count))
            for _ in range(count):
                label = stream.randrange(10)
                labels.append(label)
                noise = stream.randbytes(28 * 28)
                images += bytes(byte // 4 + (190 if pixel // 28 // 3 == label else 0) for pixel, byte in enumerate(noise))
            (folder / name / f"{prefix}-images-idx3-ubyte").write_bytes(images)
            (folder / name / f"{prefix}-labels-idx1-ubyte").write_bytes(labels)
        (folder / f"{name}.txt").write_text("".join(stream.choice("abcdefgh") for _ in range(2000)))


def replicas_of(cell):
    """Of the first part: so many that there can be fewer."""
    if cell.coupling == "none":
        return 1
    more = cell.layout != "stages" and LEAST_REPLICAS.get(cell.coupling, 1) > 1
    return REPLICAS + (1 if more else 0)


def processes_of(cell):
    """Of the first part; 0: threads of one process."""
    if cell.layout == "threads":
        return 0
    return replicas_of(cell) * (STAGES if cell.layout == "stages" else 1)


def place_after(cell):
    """Processes and replicas of the second part; no processes: threads."""
    replicas, processes = replicas_of(cell), processes_of(cell)
    if cell.workers == "same":
        return processes, replicas
    if cell.workers == "elsewhere":
        if cell.layout != "threads":
            return 0, replicas
        return (STAGES if cell.coupling == "none" and cell.schedule in STAGED else replicas), replicas
    step = 1 if cell.workers == "more" else -1
    if cell.layout == "threads":
        return 0, replicas + step
    if cell.coupling == "none":
        return processes + step, replicas
    if cell.layout == "stages":  # a whole replica in each process: as many, or one more than there were processes
        processes = replicas if step < 0 else processes + 1
        return processes, processes
    return processes + step, replicas + step


def possible(cell):
    if cell.coupling == "admm" and cell.schedule != "serial":
        return False  # needs whole steps
    if cell.schedule == "lpp" and cell.coupling in ("allreduce", "mdownpour"):
        return False  # they need every block
    if cell.layout == "stages" and cell.schedule not in STAGED:
        return False
    processes, replicas = place_after(cell)
    return replicas > 0 and (cell.layout == "threads" or cell.workers == "elsewhere" or processes > 0)


def refusals(cell):
    """Why the second part is refused: exit codes, each with the axes that it has to do with. None: it goes on."""
    found = [(REFUSALS[cell.moment], {"moment"})] if cell.moment in REFUSALS else []
    processes, replicas = place_after(cell)
    stages = cell.schedule in STAGED and processes in (1, STAGES)
    if cell.layout == "threads" and replicas != replicas_of(cell):
        found.append((2, {"layout", "workers"}))  # --replicas belongs to what a run is
    elif cell.coupling == "none" and processes > 1 and not stages:
        found.append((2, {"coupling", "workers"}))  # nothing would tie them
    elif cell.coupling == "admm" and replicas != replicas_of(cell):
        found.append((2, {"coupling", "workers"}))
    return found


def is_free(cell):
    """Whether the first part ran, or the second runs, in processes of which none waits for another."""
    after, _ = place_after(cell)
    whole = cell.layout == "processes" or (after > 0 and (cell.layout == "threads" or cell.workers in ("fewer", "more")))
    return cell.coupling in FREE_COUPLINGS and whole


def repeats(cell):
    """Whether the method fixes the bits of the whole run."""
    same = place_after(cell)[1] == replicas_of(cell)
    return same and cell.schedule in FIXED_SCHEDULES and cell.coupling in FIXED_COUPLINGS


def is_frozen(cell):
    """Whether the rate falls to nothing after 1.5 epochs, so that neither timing nor numbers decide what is reached after them."""
    return not repeats(cell)


def steps_in(epochs, replicas):
    return -(-epochs * BATCHES // replicas)


def flags_of(cell):
    text = cell.moment == "other-text"
    flags = ["--model", "lstm-char", "--width", "8", "--data", "text", "--sequence-length", "8"] if text else \
            ["--model", "mlp", "--width", "16", "--data", "mnist"]
    flags += ["--data-dir", "../../data.txt" if text else "../../data", "--batch-size", str(BATCH), "--schedule", cell.schedule,
              "--coupling", cell.coupling, "--lr", str(rate_of(cell)), "--lr-schedule", "step", "--lr-step-epochs", str(RATE_EPOCHS),
              "--lr-step-factor", str(rate_factor(cell)), "--weight-decay", "0", "--evaluate-every", "4", "--quiet"]
    if cell.coupling != "admm":
        flags += ["--momentum", "0.5"]
    if cell.schedule in STAGED:
        flags += ["--stages", str(STAGES), "--cuts", "1"]
    if cell.schedule == "dni":
        flags += ["--dni-labels", "--dni-lr", "0.01"]
    if cell.coupling in WITH_PERIOD:
        flags += ["--period", "2"]
    if cell.coupling == "mvadownpour":
        flags += ["--averaging-rate", "0.1"]
    return flags


def first_part(cell):
    """Flags that end the first part where the cell's moment is."""
    if cell.moment == "middle":
        return ["--steps", str(24 // replicas_of(cell))]
    if cell.moment == "between":
        return ["--epochs", "2"]
    if cell.moment in REFUSALS:
        return ["--steps", "4"]
    flags = ["--epochs", str(EPOCHS)]
    if cell.moment == "target":
        flags += ["--target-accuracy", "0"]
    if cell.moment == "interrupted":
        flags += ["--checkpoint-every", "2"]
    return flags


def samples_of(cell, replicas, first, last):
    """Of steps first .. last - 1 of all replicas."""
    def of(batch):
        return SAMPLES - BATCH * (BATCHES - 1) if batch % BATCHES == BATCHES - 1 else BATCH

    shared = cell.coupling in SHARDED
    return sum(of(step * replicas + replica if shared else step) for step in range(first, last) for replica in range(replicas))


def rate_of(cell):
    return 0.2 if cell.schedule == "dni" and cell.coupling != "mdownpour" else 0.1  # of a loss that fell in 30 runs of 30


def rate_factor(cell):
    return 1e-6 if is_frozen(cell) else 0.5


def rate_at_the_end(cell):
    """Of the last step of the second part."""
    replicas = place_after(cell)[1]
    every = RATE_EPOCHS * BATCHES / replicas
    return rate_of(cell) * rate_factor(cell) ** int((steps_in(EPOCHS, replicas) - 1) / every)


def second_part(cell, run):
    words = ["train", "--resume", run, "--quiet"]
    if cell.moment not in ("finished", "target", "edited"):
        words += ["--epochs", str(EPOCHS)]
    if cell.moment == "interrupted":
        words += ["--inject-delay", "nobody:0"]
    if cell.moment in ("other-data", "other-text"):
        words += ["--data-dir", "../../other" + (".txt" if cell.moment == "other-text" else "")]
    processes, replicas = place_after(cell)
    if processes == 0 and replicas != replicas_of(cell):
        words += ["--replicas", str(replicas)]
    return words


