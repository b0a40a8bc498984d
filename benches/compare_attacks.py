#!/usr/bin/env python3
"""PGD-50 and AutoAttack `standard`: Bandwise against the reference implementations, in turn on the same images.

    cargo build --release
    pip install torch numpy pyautoattack      (pyautoattack is the authors' AutoAttack as a package)
    python benches/compare_attacks.py WEIGHTS.safetensors IMAGES.bin --attacks pgd,autoattack --count 40 --rounds 5

WEIGHTS: a CIFAR ResNet-20 (see resnet20.py); IMAGES: CIFAR-10 binary records. Round k takes the k-th COUNT images,
first by one program, then by the other; each line gives CPU and wall seconds and how many images are still right,
the last ones the median ratios. Bandwise's times contain the start of the process.
"""
import argparse
import json
import os
import pathlib
import resource
import subprocess
import tempfile
import time

import torch
import torch.nn.functional as F

from resnet20 import load_images, load_weights

RECORD = 3073


def processor_seconds(who):
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


def measured(who, work):
    began, processor = time.time(), processor_seconds(who)
    result = work()
    return result, processor_seconds(who) - processor, time.time() - began


def pgd50(model, images, labels, epsilon, step):
    """The loop of most repositories: random start, 50 steps, all images to the end."""
    delta = torch.empty_like(images).uniform_(-epsilon, epsilon)
    x = (images + delta).clamp(0, 1)
    for _ in range(50):
        x.requires_grad_(True)
        gradient = torch.autograd.grad(F.cross_entropy(model(x), labels), x)[0]
        x = x.detach() + step * gradient.sign()
        x = torch.min(torch.max(x, images - epsilon), images + epsilon).clamp(0, 1)
    with torch.no_grad():
        return int((model(x).argmax(1) == labels).sum())


def autoattack(model, images, labels, epsilon, batch):
    from pyautoattack import AutoAttack

    adversary = AutoAttack(model, norm="Linf", eps=epsilon, version="standard", device="cpu")
    x = adversary.run_standard_evaluation(images, labels, batch_size=batch)
    x = x[0] if isinstance(x, tuple) else x
    with torch.no_grad():
        return int((model(x).argmax(1) == labels).sum())


def ours(attack, epsilon, step, arguments, chunk, folder):
    target = pathlib.Path(folder) / "records.json"
    command = [arguments.bandwise, "evaluate", "--weights", arguments.weights, "--model", "resnet20",
               "--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225", "--data", f"cifar10-bin:{chunk}",
               "--attack", attack, "--eps", str(epsilon), "--json", target]
    if attack == "pgd":
        command += ["--steps", "50", "--step-size", str(step), "--start", "random"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return json.loads(target.read_text())["records"][-1]["correct"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights")
    parser.add_argument("images")
    parser.add_argument("--attacks", default="pgd,autoattack")
    parser.add_argument("--eps", type=float, default=0.5, help="in 1/255 (default 0.5)")
    parser.add_argument("--count", type=int, default=40, help="images per round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1, help="of both (default 1: other load disturbs it least)")
    parser.add_argument("--bandwise", default="target/release/bandwise", help="the binary")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    os.environ["RAYON_NUM_THREADS"] = str(arguments.threads)
    model, epsilon = load_weights(arguments.weights), arguments.eps / 255
    step = epsilon / 4
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, ε = {arguments.eps:g}/255")
    for attack in arguments.attacks.split(","):
        ratios = []
        for number in range(arguments.rounds):
            with tempfile.TemporaryDirectory() as folder:
                chunk = pathlib.Path(folder) / "chunk.bin"
                with open(arguments.images, "rb") as file:
                    file.seek(number * arguments.count * RECORD)
                    chunk.write_bytes(file.read(arguments.count * RECORD))
                right, cpu, wall = measured(resource.RUSAGE_CHILDREN,
                                            lambda: ours(attack, epsilon, step, arguments, chunk, folder))
                images, labels = load_images(chunk, None)
            reference = {"pgd": lambda: pgd50(model, images, labels, epsilon, step),
                         "autoattack": lambda: autoattack(model, images, labels, epsilon, len(images))}[attack]
            expected, reference_cpu, reference_wall = measured(resource.RUSAGE_SELF, reference)
            ratios.append((reference_cpu / cpu, reference_wall / wall))
            print(f"{attack} round {number + 1}: {right} right of {len(labels)}, {cpu:.2f} s CPU, {wall:.2f} s wall; "
                  f"reference {expected} right, {reference_cpu:.2f} s, {reference_wall:.2f} s", flush=True)
        cpu, wall = (sorted(values)[len(values) // 2] for values in zip(*ratios))
        print(f"{attack}: median ratio {cpu:.1f} in CPU time, {wall:.1f} in wall time")


if __name__ == "__main__":
    main()
