"""What passing through Bandwise costs: PGD on a ResNet-18 of torchvision, by Bandwise and by a loop of PyTorch's own, in
alternating rounds. Needs torch and torchvision.

    python3 benches/python_overhead.py [--images 64] [--steps 10] [--rounds 3] [--device cpu]
"""

import argparse
import statistics
import time

import numpy as np
import torch
import torchvision
from torch.nn import functional

import bandwise as bw


def own_loop(module, images, labels, eps, step, steps):
    moved = (images + torch.empty_like(images).uniform_(-eps, eps)).clamp(0, 1)
    for _ in range(steps):
        moved.requires_grad_(True)
        loss = functional.cross_entropy(module(moved), labels, reduction="sum")
        (slope,) = torch.autograd.grad(loss, moved)
        moved = (images + (moved.detach() + step * slope.sign() - images).clamp(-eps, eps)).clamp(0, 1)
    return moved


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    torch.manual_seed(0)
    module = torchvision.models.resnet18(num_classes=10).eval().to(given.device)
    images = torch.from_numpy(np.random.default_rng(0).uniform(size=(given.images, 3, 32, 32)).astype(np.float32))
    images = images.to(given.device)
    with torch.no_grad():
        labels = module(images).argmax(1)
    eps = 8 / 255
    model = bw.wrap(module)
    times = {"PyTorch's loop": [], "Bandwise, every step for every image": [], "Bandwise, survivors only": []}

    def timed(name, work):
        began = time.perf_counter()
        work()
        if given.device != "cpu":
            torch.cuda.synchronize()
        times[name].append(time.perf_counter() - began)

    options = {"eps": "8/255", "steps": given.steps, "step_size": "2/255", "batch_size": given.images}
    for _ in range(given.rounds):
        timed("PyTorch's loop", lambda: own_loop(module, images, labels, eps, 2 / 255, given.steps))
        timed(
            "Bandwise, every step for every image",
            lambda: bw.attack(model, images, labels, "pgd", early_stop=False, **options),
        )
        timed("Bandwise, survivors only", lambda: bw.attack(model, images, labels, "pgd", **options))
    base = statistics.median(times["PyTorch's loop"])
    for name, seconds in times.items():
        print(f"{name}: {statistics.median(seconds):.3f} s, {statistics.median(seconds) / base:.3f} of PyTorch's loop")


if __name__ == "__main__":
    main()
