#!/usr/bin/env python3
"""Fourier masks in PyTorch, step for step as the published code does it, for comparison with
`bandwise mask`.

usage: compare_masks.py WEIGHTS.safetensors IMAGES.bin [--mode per-image|data-set] [--count N] [--steps N]
                        [--schedule published|corrected] [--out MASKS.npy]

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
import struct
import time

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

MEAN = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)


class Block(nn.Module):
    def __init__(self, inputs, planes, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.pad = (planes - inputs) // 2
        self.stride = stride

    def forward(self, x):
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.stride > 1:
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.pad, self.pad))
        return F.relu(out + x)


class ResNet20(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        stages, inputs = [], 16
        for planes, stride in [(16, 1), (32, 2), (64, 2)]:
            stages.append(nn.Sequential(*(Block(inputs if i == 0 else planes, planes, stride if i == 0 else 1)
                                          for i in range(3))))
            inputs = planes
        self.layer1, self.layer2, self.layer3 = stages
        self.linear = nn.Linear(64, 10)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1((x - MEAN) / STD)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


class Masked(nn.Module):
    def __init__(self, core, size):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, 1, size, size))
        self.core = core

    def forward(self, x):
        return self.core(torch.fft.ifft2(self.weight * torch.fft.fft2(x)).real)


def load_weights(path):
    with open(path, "rb") as file:
        length = struct.unpack("<Q", file.read(8))[0]
        header = json.loads(file.read(length))
        data = file.read()
    state = {}
    for name, entry in header.items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            values = np.frombuffer(data[begin:end], dtype=np.float32).copy()
            state[name] = torch.from_numpy(values).view(entry["shape"])
    model = ResNet20()
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected and all(name.endswith("num_batches_tracked") for name in missing)
    for parameter in model.parameters():
        parameter.requires_grad = False
    return model.eval()


def load_images(path, count):
    records = np.fromfile(path, dtype=np.uint8).reshape(-1, 3073)[:count]
    images = torch.from_numpy(records[:, 1:].reshape(-1, 3, 32, 32).astype(np.float32) / 255)
    return images, torch.from_numpy(records[:, 0].astype(np.int64))


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


def image_mask(core, image, max_steps, corrected, patience=300):
    with torch.no_grad():
        clean = core(image)
    target = clean.argmax(1)
    model = Masked(core, image.shape[-1])
    size = model.weight.numel()
    optimizer = torch.optim.Adam([model.weight], lr=0.2)
    schedule = one_cycle(optimizer, 0.2, max_steps * (1 if corrected else 200) + int(corrected))
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
        mask, taken, same = image_mask(core, images[index:index + 1], arguments.steps,
                                       arguments.schedule == "corrected")
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


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights")
    parser.add_argument("images")
    parser.add_argument("--mode", choices=["per-image", "data-set"], default="per-image")
    parser.add_argument("--schedule", choices=["published", "corrected"], default="published")
    parser.add_argument("--count", type=int, default=500, help="images")
    parser.add_argument("--steps", type=int, default=20000, help="most steps per image")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--out", help="write the masks as .npy")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    core = load_weights(arguments.weights)
    images, labels = load_images(arguments.images, arguments.count)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    if arguments.mode == "per-image":
        masks = per_image(core, images, arguments)
    else:
        masks = data_set(core, images, labels, arguments.epochs)
    if arguments.out:
        np.save(arguments.out, masks)


if __name__ == "__main__":
    main()
