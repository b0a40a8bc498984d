#!/usr/bin/env python3
"""Two builds of `bandwise` in turn: an epoch of training and an evaluation under PGD.

    python3 benches/compare_binaries.py BEFORE AFTER --weights W.safetensors --images IMAGES.bin --data cifar10:DIR

W: a CIFAR ResNet-20 (names of pytorch_resnet_cifar10); IMAGES: CIFAR-10 binary records. Prints the medians of AFTER's CPU
and wall time over BEFORE's, and the first round's seconds and megabytes. Needs nothing but Python.
"""
import argparse
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time


def jobs(arguments, out):
    recipe = pathlib.Path(__file__).parent.parent / "recipes/cifar10/resnet9-quick.toml"
    yield "training", ["train", str(recipe), "--data", f"{arguments.data},limit=1280", "--set", "epochs=1",
                       "--set", "evaluation.limit=64", "--out", out]
    yield "PGD-30", ["evaluate", "--weights", arguments.weights, "--mean", "0.485,0.456,0.406",
                     "--std", "0.229,0.224,0.225", "--data", f"cifar10-bin:{arguments.images}", "--limit", "256",
                     "--batch-size", "128", "--attack", "pgd", "--eps", "0.3/255", "--steps", "30"]


def measure(command):
    """CPU seconds, wall seconds, megabytes."""
    began = time.time()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(said.decode(errors="replace")[-500:])
    return usage.ru_utime + usage.ru_stime, time.time() - began, usage.ru_maxrss / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before")
    parser.add_argument("after")
    parser.add_argument("--weights", required=True)
    parser.add_argument("--images", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "run")
        for name, job in jobs(arguments, out):
            rounds = []
            for number in range(arguments.rounds + 1):
                both = []
                for binary in (arguments.before, arguments.after):
                    shutil.rmtree(out, ignore_errors=True)
                    both.append(measure([binary, *job]))
                if number > 0:  # the first round reads files for the others
                    rounds.append(both)
            cpu, wall = (statistics.median(b[i] / a[i] for a, b in rounds) for i in (0, 1))
            before, after = ("{:.1f} s CPU, {:.1f} s, {:.0f} MB".format(*values) for values in rounds[0])
            print(f"{name}: after / before {cpu:.2f} in CPU, {wall:.2f} in wall time (before {before}; after {after})",
                  flush=True)


if __name__ == "__main__":
    main()
