"""A ViT, a ConvNeXt and a Swin of timm (random weights) through the check before an evaluation, PGD-10 and a heat map.
Needs torch and timm.

    python3 benches/python_architectures.py [--images 8]
"""

import argparse
import time

import numpy as np
import timm
import torch

import bandwise as bw

MODELS = ["vit_tiny_patch16_224", "convnext_atto", "swin_tiny_patch4_window7_224"]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=8)
    given = parser.parse_args()
    torch.manual_seed(0)
    images = np.random.default_rng(0).uniform(size=(given.images, 3, 224, 224)).astype(np.float32)
    print("| model | right | under PGD-10 | s | mean error of 5 × 5 waves | s | warnings |\n|---|---|---|---|---|---|---|")
    for name in MODELS:
        module = timm.create_model(name, num_classes=10).eval()
        labels = bw.wrap(module).logits(images, batch_size=8).argmax(1)
        began = time.perf_counter()
        found = bw.evaluate(module, images, labels, attack="pgd", eps="1/255", batch_size=8, progress=False)
        attacked = time.perf_counter() - began
        began = time.perf_counter()
        heat = bw.heatmap(module, images, labels, norm=15.7, largest_frequency=2, batch_size=8, progress=False)[0]
        waves = time.perf_counter() - began
        print(
            f"| {name} | {found.clean_accuracy:.0%} | {found.accuracy:.0%} | {attacked:.1f} | {heat.error.mean():.0%} "
            f"| {waves:.1f} | {'; '.join(found.warnings) or 'none'} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
