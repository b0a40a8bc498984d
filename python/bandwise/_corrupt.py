"""The common corruptions of Hendrycks and Dietterich, and their neighbors."""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np

from . import _bandwise
from ._arrays import Layout, images_in, images_out


def corrupt(
    images: Any,
    corruption: str,
    *,
    severity: int = 3,
    protocol: str | None = None,
    seed: int = 0,
    frost: str | os.PathLike[str] | None = None,
    first_index: int = 0,
    layout: Layout = "NCHW",
) -> Any:
    """Corrupted images, as the type that came in: uint8, or floats in [0, 1] on a grid of 1/255.

    The result for an image depends on seed, corruption, severity and its index only; the first of `images` has index
    `first_index`. `protocol` says whose constants are used ("cifar", "64" or "224"), by default those for the nearest
    size. Frost is procedural unless a folder with the published textures is given.

    >>> import numpy as np, bandwise as bw
    >>> images = np.full((2, 32, 32, 3), 128, dtype=np.uint8)
    >>> foggy = bw.corrupt(images, "fog", severity=3, protocol="cifar", seed=0, layout="NHWC")
    >>> foggy.shape, foggy.dtype
    ((2, 32, 32, 3), dtype('uint8'))
    """
    pixels = images_in(images, layout)
    floats = pixels.dtype != np.uint8
    if floats:
        if not (np.all(pixels >= 0) and np.all(pixels <= 1)):
            raise ValueError("float pixels must lie in [0, 1]")
        pixels = np.round(pixels * np.float32(255)).astype(np.uint8)
    folder = None if frost is None else os.fspath(frost)
    made: Any = _bandwise.corrupt(pixels, corruption, severity, protocol, seed, folder, first_index)
    if floats:
        made = made.astype(np.float32) / np.float32(255)
    return images_out(made, images, layout)


def corruptions() -> list[dict[str, str]]:
    """The corruptions: name, family, what each does, and whether it belongs to the main or the extra ones.

    >>> import bandwise as bw
    >>> [c["name"] for c in bw.corruptions() if c["family"] == "noise" and c["group"] == "main"]
    ['gaussian_noise', 'shot_noise', 'impulse_noise']
    """
    rows: list[dict[str, str]] = json.loads(_bandwise.corruptions())
    return rows
