"""The reference ResNet-20 as an nn.Module under our attacks, against the library's own network: the verdict on every
image. Needs torch, and the reference values in BANDWISE_GOLDEN.

    python3 benches/python_exactness.py [--limit 500] [--attacks fgsm,pgd,apgd-ce,autoattack]
"""

import argparse
import os
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

import bandwise as bw  # noqa: E402
from resnet20 import load_weights  # noqa: E402


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--golden", default=os.environ.get("BANDWISE_GOLDEN", "../shared/golden"))
    parser.add_argument("--limit", type=int, default=500)
    parser.add_argument("--attacks", default="fgsm,pgd")
    parser.add_argument("--eps", default="1/255")
    given = parser.parse_args()
    folder = Path(given.golden)
    weights = folder / "resnet20_akamaster.safetensors"
    module = load_weights(weights)
    native = bw.load(weights, mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
    images, labels = bw.data(f"cifar10-bin:{folder / 'cifar10_500.bin'}", limit=given.limit)
    print("| attack | nn.Module right | own network right | same verdict |\n|---|---|---|---|")
    for attack in given.attacks.split(","):
        options = {"attack": attack, "eps": given.eps, "progress": False}
        ours, theirs = (bw.evaluate(model, images, labels, **options) for model in (module, native))
        same = int(np.sum(ours.per_image == theirs.per_image))
        print(f"| {attack}, ε = {given.eps} | {ours.correct} | {theirs.correct} | {same} of {len(images)} |", flush=True)


if __name__ == "__main__":
    main()
