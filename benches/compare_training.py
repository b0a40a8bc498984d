"""Adversarial weight perturbation, weight averages and free replay: weights after some steps, Bandwise against PyTorch.

Both train a small network from the same weights on one batch of CIFAR-10; the PyTorch side is written after the
official code of AWP (diff_in_weights, proxy model) and of free adversarial training. Rounding grows with the steps,
faster where signs of small gradients decide, so the first losses must agree to about seven digits.

    cargo build --release
    python benches/compare_training.py target/release/bandwise DIR/cifar-10-batches-bin
"""

import argparse
import json
import pathlib
import struct
import subprocess
import tempfile

import numpy
import torch
import torch.nn as nn
import torch.nn.functional as F

BATCH, WIDTH, RATE, GAMMA, DECAY = 64, 8, 0.1, 0.01, 0.7
RECIPE = f"""name = "comparison"
batch_size = {BATCH}
[data]
source = "cifar10:%s"
train_limit = {BATCH}
[model]
architecture = "smallcnn"
width = {WIDTH}
[optimizer]
name = "sgd"
momentum = 0.9
weight_decay = 5e-4
[evaluation]
every = 0
"""
AWP = f"""[objective]
name = "adversarial"
attack = {{ name = "fgsm", epsilon = 0 }}
[awp]
gamma = {GAMMA}
warmup = 1
[averaging]
name = "ema"
decay = {DECAY}
"""
FREE = """[objective]
name = "free"
epsilon = "8/255"
step_size = "3/255"
replays = 3
"""


class SmallCnn(nn.Module):
    def __init__(self):
        super().__init__()
        inputs = 3
        for number, outputs in enumerate([WIDTH, 2 * WIDTH, 4 * WIDTH, 4 * WIDTH], 1):
            stride = 1 if number == 1 else 2
            setattr(self, f"conv{number}", nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False))
            setattr(self, f"bn{number}", nn.BatchNorm2d(outputs))
            inputs = outputs
        self.fc = nn.Linear(inputs, 10)

    def forward(self, x):
        for number in range(1, 5):
            x = F.relu(getattr(self, f"bn{number}")(getattr(self, f"conv{number}")(x)))
        return self.fc(x.mean((2, 3)))


def safetensors(path):
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    tensors = {}
    for name, entry in json.loads(data[8 : 8 + length]).items():
        if name != "__metadata__":
            start, end = (8 + length + offset for offset in entry["data_offsets"])
            values = numpy.frombuffer(data[start:end], dtype=numpy.float32).reshape(entry["shape"])
            tensors[name] = torch.tensor(values.copy())
    return tensors


def bandwise(binary, folder, text, rate, epochs):
    (folder / "recipe.toml").write_text(f"epochs = {epochs}\nlearning_rate = {rate}\n{text}")
    run = folder / f"run-{len(list(folder.iterdir()))}"
    subprocess.run([binary, "train", folder / "recipe.toml", "--out", run], check=True, capture_output=True)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return run, [line["values"]["train/loss"] for line in lines if line["kind"] == "epoch"]


def start(initial):
    model = SmallCnn().train()
    model.load_state_dict({k: v for k, v in initial.items() if "running" not in k}, strict=False)
    return model, torch.optim.SGD(model.parameters(), lr=RATE, momentum=0.9, weight_decay=5e-4)


def awp(initial, x, y, steps):
    """Official AWP on plain cross-entropy: the attack has ε = 0, so that no sign of rounding noise decides."""
    model, optimizer = start(initial)
    proxy = SmallCnn()
    proxy_optimizer = torch.optim.SGD(proxy.parameters(), lr=0.01)
    losses, average = [], None
    for step in range(steps):
        difference = {}
        if step >= 1:
            proxy.load_state_dict(model.state_dict())
            proxy.train()
            proxy_optimizer.zero_grad()
            (-F.cross_entropy(proxy(x), y)).backward()
            proxy_optimizer.step()
            for (name, old), new in zip(model.state_dict().items(), proxy.state_dict().values()):
                if old.dim() > 1 and "weight" in name:
                    change = new - old
                    difference[name] = old.norm() / (change.norm() + 1e-20) * change

        def add(factor):
            with torch.no_grad():
                for name, weight in model.named_parameters():
                    if name in difference:
                        weight.add_(factor * difference[name])

        add(GAMMA)
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        add(-GAMMA)
        losses.append(loss.item())
        state = {name: value.clone().float() for name, value in model.state_dict().items()}
        blend = lambda name: DECAY * average[name] + (1 - DECAY) * state[name]
        average = state if average is None else {name: blend(name) for name in state}
    return losses, {"trained.safetensors": model.state_dict(), "model.safetensors": average}


def free(initial, x, y):
    """One epoch of one batch. Pixels at 0 and 1 have a gradient, as with `clamp` of older PyTorch."""
    model, optimizer = start(initial)
    delta, losses = torch.zeros_like(x), []
    for _ in range(3):
        noise = delta.clone().requires_grad_()
        moved = x + noise
        inside = (moved >= 0) & (moved <= 1)
        loss = F.cross_entropy(model(torch.where(inside, moved, moved.detach().clamp(0, 1))), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        delta = (delta + 3 / 255 * noise.grad.sign()).clamp(-8 / 255, 8 / 255)
        losses.append(loss.item())
    return [sum(losses) / 3], {"model.safetensors": model.state_dict()}


def show(title, run, ours, theirs, states):
    print(title)
    for epoch, (a, b) in enumerate(zip(ours, theirs), 1):
        print(f"  loss {epoch}: {a:.7f} {b:.7f}  difference {abs(a - b):.1e}")
    for file, state in states.items():
        found = safetensors(run / file)
        error = lambda name: ((found[name] - state[name].reshape(found[name].shape)).norm() / state[name].norm()).item()
        print(f"  {file}: largest relative error of a weight {max(error(n) for n in found if n.endswith('weight')):.1e}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("data", help="folder of the binary CIFAR-10 files")
    parser.add_argument("--steps", type=int, default=4)
    arguments = parser.parse_args()
    raw = numpy.fromfile(pathlib.Path(arguments.data) / "data_batch_1.bin", dtype=numpy.uint8)
    raw = raw[: BATCH * 3073].reshape(BATCH, 3073)
    y = torch.tensor(raw[:, 0].astype(numpy.int64))
    x = torch.tensor(raw[:, 1:].reshape(BATCH, 3, 32, 32).astype(numpy.float32) / numpy.float32(255))
    recipe = RECIPE % arguments.data
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        still, _ = bandwise(arguments.binary, folder, recipe, 1e-30, 1)
        initial = safetensors(still / "model.safetensors")
        run, losses = bandwise(arguments.binary, folder, recipe + AWP, RATE, arguments.steps)
        show("adversarial weight perturbation, EMA", run, losses, *awp(initial, x, y, arguments.steps))
        run, losses = bandwise(arguments.binary, folder, recipe + FREE, RATE, 1)
        show("free replay (mean loss of three replays)", run, losses, *free(initial, x, y))


if __name__ == "__main__":
    main()
