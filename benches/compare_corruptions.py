"""Our corruptions against the Python ones: same images, in turn, speed and pixels.

    python3 -m venv venv && venv/bin/pip install numpy scipy scikit-image opencv-python-headless pillow wand
    cargo build --release --example corruption_speed
    venv/bin/python benches/compare_corruptions.py IMAGES [--protocol cifar|64|224] [--limit N] [--rounds N]

IMAGES is a uint8 .npy [n, side, side, 3] or a CIFAR-10 .bin file (enlarged to 64 or 224 pixels where the protocol asks
for it). wand needs ImageMagick's library (apt-get install libmagickwand-6.q16-6); without it motion blur and snow are
left out. The Python side runs as the published scripts do, one image after the other in one process; ours uses all
cores. Frost is procedural on our side and takes FROST_TEXTURES on the Python side, and is left out without them.

Prints a Markdown table: milliseconds per image of either side, their ratio, and, for corruptions without randomness,
the mean and largest difference of the pixels in grey levels.
"""

import argparse
import os
import subprocess
import tempfile
import time

import cv2
import numpy as np
from PIL import Image

import common_corruptions as reference


def read_images(path, side, limit):
    if path.endswith(".npy"):
        images = np.load(path)[:limit]
    else:
        records = np.fromfile(path, np.uint8).reshape(-1, 3073)[:limit, 1:]
        images = records.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    if images.shape[1] != side:
        images = np.stack([cv2.resize(i, (side, side), interpolation=cv2.INTER_CUBIC) for i in images])
    return np.ascontiguousarray(images)


def time_python(name, images, protocol, seconds):
    function = reference.CORRUPTIONS[name]
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds or count < 5:
        function(images[count // 5 % len(images)], count % 5 + 1, protocol)
        count += 1
    return (time.perf_counter() - start) / count


def time_ours(binary, source, protocol, seconds, out, name):
    command = [binary, source, protocol, str(seconds), out, name]
    line = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return 1 / float(line[1])


def differences(name, images, protocol, out):
    """Over at most 20 images: Python is slow."""
    ours = np.load(os.path.join(out, name + ".npy")).reshape(5, len(images), *np.array(images[0]).shape)
    theirs = [[reference.CORRUPTIONS[name](i, s + 1, protocol) for i in images[:20]] for s in range(5)]
    gap = np.abs(np.array(theirs).astype(int) - ours[:, :20])
    return gap.mean(), gap.max()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("images")
    parser.add_argument("--protocol", default="cifar", choices=reference.PROTOCOLS)
    parser.add_argument("--limit", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="per side, round and corruption")
    parser.add_argument("--binary", default="target/release/examples/corruption_speed")
    arguments = parser.parse_args()
    protocol = arguments.protocol
    arrays = read_images(arguments.images, reference.SIDES[protocol], arguments.limit)
    images = [Image.fromarray(a) for a in arrays]
    names = list(reference.CORRUPTIONS)
    if reference.WandImage is None:
        names = [n for n in names if n not in ("motion_blur", "snow")]
    if "FROST_TEXTURES" not in os.environ:
        names.remove("frost")
    print("| corruption | Python, ms | ours, ms | ratio | mean difference | largest |\n|---|---|---|---|---|---|")
    totals = [0.0, 0.0]
    with tempfile.TemporaryDirectory() as out:
        source = os.path.join(out, "images.npy")
        np.save(source, arrays)
        for name in names:
            python, ours = [], []
            for _ in range(arguments.rounds):
                python.append(time_python(name, images, protocol, arguments.seconds))
                ours.append(time_ours(arguments.binary, source, protocol, arguments.seconds, out, name))
            # The best round of each side: what it takes when nothing else disturbs it.
            python, ours = 1000 * min(python), 1000 * min(ours)
            gap = ("", "")
            if name in reference.DETERMINISTIC:
                gap = tuple(f"{v:.4g}" for v in differences(name, images, protocol, out))
            print(f"| {name} | {python:.3f} | {ours:.4f} | {python / ours:.0f} | {gap[0]} | {gap[1]} |", flush=True)
            totals = [totals[0] + python, totals[1] + ours]
    print(f"| total | {totals[0]:.2f} | {totals[1]:.3f} | {totals[0] / totals[1]:.0f} | | |")


if __name__ == "__main__":
    main()
