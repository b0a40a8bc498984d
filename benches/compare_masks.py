#!/usr/bin/env python3
"""Fourier masks in PyTorch, step for step as the published code does it, for comparison with
`bandwise mask`.

    cargo build --release
    python benches/compare_masks.py WEIGHTS.safetensors IMAGES.bin --rounds 5 --count 4 --ours 200 --steps 500

With --rounds, Bandwise and the published procedure take turns, and the last line is the median ratio of their CPU
times per image and step. With --agree, both learn the masks of the same images (--count), which are compared. Without,
PyTorch alone learns masks (--mode per-image|data-set, --out MASKS.npy).

Masks act on the network's normalized input, as in the published code; --space pixels masks pixels in [0, 1].

WEIGHTS: a CIFAR ResNet-20 with parameter-free shortcuts (names of pytorch_resnet_cifar10);
IMAGES: CIFAR-10 binary records. Needs torch and numpy.

Per image (train_single_img_masks.py): one image at a time, a forward and backward pass through the frozen
network, Adam, clamp, then one more forward pass for the prediction; stops when the prediction is the
initial one and the invariance (1e-6) and the relative L1 norm (1e-5) stand still for 300 steps.
Data set (train_masks.py): batches of one in random order, and an evaluation pass with batches of one
after every epoch.
"""
import argparse
import json
import os
import pathlib
import re
import resource
import subprocess
import tempfile
import time

import numpy as np
import torch
import torch.nn as nn

from resnet20 import MEAN, STD, load_images, load_weights


class Masked(nn.Module):
    def __init__(self, core, size):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, 1, size, size))
        self.core = core

    def forward(self, x):
        # The network normalizes by itself: its input is masked between a normalization here and the way back.
        seen = (x - ORIGIN["mean"]) / ORIGIN["std"]
        seen = torch.fft.ifft2(self.weight * torch.fft.fft2(seen)).real
        return self.core(seen * ORIGIN["std"] + ORIGIN["mean"])


# What the masked values are normalized by: the network's constants, or none (pixels).
ORIGIN = {"mean": MEAN, "std": STD}


def step(model, optimizer, schedule, image, target, clean, decay):
    criterion = nn.CrossEntropyLoss()
    invariance = (criterion(model(image), target) - criterion(clean, target)) ** 2
    norm = torch.norm(model.weight, p=1)
    loss = torch.exp(invariance) + decay * norm
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    schedule.step()
    model.weight.data = model.weight.data.clamp(0.0, 1.0)
    return invariance.item(), norm.item()


def one_cycle(optimizer, peak, steps):
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, peak, total_steps=steps, pct_start=0.1)


def image_mask(core, image, max_steps, patience=300):
    with torch.no_grad():
        clean = core(image)
    target = clean.argmax(1)
    model = Masked(core, image.shape[-1])
    size = model.weight.numel()
    optimizer = torch.optim.Adam([model.weight], lr=0.2)
    schedule = one_cycle(optimizer, 0.2, max_steps * 200)
    log, quiet = [], 0
    for number in range(max_steps):
        invariance, norm = step(model, optimizer, schedule, image, target, clean, 0.07 / size)
        log.append((invariance, norm / size))
        with torch.no_grad():
            same = bool((model(image).argmax(1) == target).item())
        if number > 0 and same:
            still = abs(log[-1][0] - log[-2][0]) <= 1e-6 and abs(log[-1][1] - log[-2][1]) <= 1e-5
            quiet = quiet + 1 if still else 0
        if quiet == patience:
            break
    return model.weight.detach()[0, 0].numpy(), number + 1, same


def per_image(core, images, arguments):
    began, processor = time.time(), time.process_time()
    masks, steps, kept = [], 0, 0
    for index in range(len(images)):
        mask, taken, same = image_mask(core, images[index:index + 1], arguments.steps)
        masks.append(mask)
        steps, kept = steps + taken, kept + same
    seconds, processor = time.time() - began, time.process_time() - processor
    print(f"{len(images)} masks, {steps} steps, {seconds:.1f} s: {seconds / len(images):.3f} s per image, "
          f"{1e3 * seconds / steps:.3f} ms per step ({1e3 * processor / steps:.3f} ms processor), relative L1 {np.mean(masks):.4f}, "
          f"{kept} predictions kept")
    return np.stack(masks)


def data_set(core, images, labels, epochs):
    with torch.no_grad():
        clean = torch.cat([core(images[i:i + 1]) for i in range(len(images))])
    model = Masked(core, images.shape[-1])
    size = model.weight.numel()
    optimizer = torch.optim.Adam([model.weight], lr=1e-3)
    schedule = one_cycle(optimizer, 1e-3, 100 * len(images))
    began = time.time()
    for epoch in range(epochs):
        for i in torch.randperm(len(images)).tolist():
            step(model, optimizer, schedule, images[i:i + 1], labels[i:i + 1], clean[i:i + 1], 0.2 / size)
        with torch.no_grad():
            right = sum(int(model(images[i:i + 1]).argmax(1) == labels[i]) for i in range(len(images)))
        print(f"epoch {epoch + 1}: relative L1 {model.weight.mean().item():.4f}, masked accuracy "
              f"{right / len(images):.4f}, clean {float((clean.argmax(1) == labels).float().mean()):.4f}, "
              f"{time.time() - began:.1f} s", flush=True)
    return model.weight.detach()[0, 0].numpy()


def processor_seconds(who):
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


def ours(arguments):
    """CPU and wall seconds per picture and step of `bandwise mask --per-image`."""
    with tempfile.TemporaryDirectory() as folder:
        command = [arguments.bandwise, "mask", "--per-image", "--weights", arguments.weights, "--model", "resnet20",
                   "--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225",
                   "--data", f"cifar10-bin:{arguments.images}", "--limit", str(arguments.ours),
                   "--max-steps", str(arguments.steps), "--precision", arguments.precision,
                   "--space", arguments.space, "--out", folder]
        began, processor = time.time(), processor_seconds(resource.RUSAGE_CHILDREN)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wall, processor = time.time() - began, processor_seconds(resource.RUSAGE_CHILDREN) - processor
        lines = (pathlib.Path(folder) / "images.jsonl").read_text().splitlines()
        taken = sum(int(re.search(r'"steps":(\d+)', line)[1]) for line in lines if '"steps"' in line)
    return processor / taken, wall / taken


def agree(core, images, arguments):
    """Masks of the same images by both, and how alike they are."""
    theirs = per_image(core, images, arguments)
    with tempfile.TemporaryDirectory() as folder:
        command = [arguments.bandwise, "mask", "--per-image", "--weights", arguments.weights, "--model", "resnet20",
                   "--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225",
                   "--data", f"cifar10-bin:{arguments.images}", "--limit", str(len(images)),
                   "--max-steps", str(arguments.steps),
                   "--space", arguments.space, "--out", folder]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        own = np.load(pathlib.Path(folder) / "masks.npy")
        lines = (pathlib.Path(folder) / "images.jsonl").read_text().splitlines()[1:]
    lines = [json.loads(line) for line in lines]
    kept = sum(line["prediction"] == line["clean_prediction"] for line in lines)
    a, b = own.reshape(len(own), -1), theirs.reshape(len(theirs), -1)
    cosines = (a * b).sum(1) / np.sqrt((a * a).sum(1) * (b * b).sum(1))
    print(f"Bandwise: relative L1 {own.mean():.4f}, {kept} predictions kept")
    print(f"cosine of an image's two masks: median {np.median(cosines):.3f}, "
          f"above 0.95: {(cosines > 0.95).sum()} of {len(cosines)}")


def side_by_side(core, images, arguments):
    ratios = []
    for number in range(arguments.rounds):
        cpu, wall = ours(arguments)
        began, processor, taken = time.time(), time.process_time(), 0
        for index in range(number * arguments.count, (number + 1) * arguments.count):
            index %= len(images)
            taken += image_mask(core, images[index:index + 1], arguments.steps)[1]
        reference_cpu, reference_wall = (time.process_time() - processor) / taken, (time.time() - began) / taken
        ratios.append((reference_cpu / cpu, reference_wall / wall))
        print(f"round {number + 1}: per picture and step {1e3 * cpu:.3f} ms CPU, {1e3 * wall:.3f} ms wall; published "
              f"procedure {1e3 * reference_cpu:.3f} and {1e3 * reference_wall:.3f}", flush=True)
    cpu, wall = (sorted(values)[len(values) // 2] for values in zip(*ratios))
    print(f"median ratio: {cpu:.1f} in CPU time, {wall:.1f} in wall time")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights")
    parser.add_argument("images")
    parser.add_argument("--mode", choices=["per-image", "data-set"], default="per-image")
    parser.add_argument("--count", type=int, default=500, help="images")
    parser.add_argument("--steps", type=int, default=20000, help="most steps per image")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--rounds", type=int, help="take turns with Bandwise so many times")
    parser.add_argument("--ours", type=int, default=200, help="images per round of Bandwise, side by side")
    parser.add_argument("--bandwise", default="target/release/bandwise", help="the binary")
    parser.add_argument("--precision", default="f32", help="arithmetic of Bandwise's convolutions")
    parser.add_argument("--agree", action="store_true", help="learn the masks with Bandwise, too, and compare them")
    parser.add_argument("--space", choices=["input", "pixels"], default="input", help="what is masked")
    parser.add_argument("--out", help="write the masks as .npy")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
        os.environ["RAYON_NUM_THREADS"] = str(arguments.threads)
    core = load_weights(arguments.weights)
    images, labels = load_images(arguments.images, arguments.count)
    if arguments.space == "pixels":
        ORIGIN.update(mean=torch.zeros(1), std=torch.ones(1))
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    if arguments.rounds:
        return side_by_side(core, load_images(arguments.images, None)[0], arguments)
    if arguments.agree:
        return agree(core, images, arguments)
    if arguments.mode == "per-image":
        masks = per_image(core, images, arguments)
    else:
        masks = data_set(core, images, labels, arguments.epochs)
    if arguments.out:
        np.save(arguments.out, masks)


if __name__ == "__main__":
    main()
