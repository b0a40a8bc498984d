"""Images and labels of any array library, at the door: inside, images are NumPy `[n, height, width, channels]`."""

from __future__ import annotations

import sys
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from . import _bandwise

Layout = Literal["NCHW", "NHWC"]


def is_torch(array: Any) -> bool:
    """Whether it is a tensor of torch; torch is not imported for it."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(array, torch.Tensor)


def to_numpy(array: Any) -> NDArray[Any]:
    """A NumPy array of a NumPy array, a torch tensor on any device, or anything that speaks DLPack."""
    if isinstance(array, np.ndarray):
        return array
    if is_torch(array):
        found: NDArray[Any] = array.detach().cpu().numpy()
        return found
    if hasattr(array, "__dlpack__") and not hasattr(array, "__array__"):
        return np.from_dlpack(array)
    return np.asarray(array)


def check_layout(layout: str) -> None:
    """Refuses other layouts than the two."""
    if layout not in ("NCHW", "NHWC"):
        raise ValueError(f"layout must be NCHW or NHWC, got {layout!r}")


def images_in(images: Any, layout: Layout) -> NDArray[Any]:
    """Images as the library takes them: uint8, or float32 in [0, 1]."""
    check_layout(layout)
    array = to_numpy(images)
    if array.ndim != 4:
        raise ValueError(f"images must have four dimensions ({layout}), got shape {array.shape}")
    axis, other = (1, 3) if layout == "NCHW" else (3, 1)
    if array.shape[axis] not in (1, 3, 4) and array.shape[other] in (1, 3, 4):
        wanted = "NHWC" if layout == "NCHW" else "NCHW"
        raise ValueError(f"images of shape {array.shape} are no {layout}; say layout={wanted!r}")
    if array.dtype != np.uint8:
        if not np.issubdtype(array.dtype, np.floating):
            raise ValueError(f"images must be uint8, or floats in [0, 1]; got {array.dtype}")
        array = array.astype(np.float32, copy=False)
    if layout == "NCHW":
        array = array.transpose(0, 2, 3, 1)
    return np.ascontiguousarray(array)


def images_out(array: NDArray[Any], like: Any, layout: Layout) -> Any:
    """NumPy `[n, height, width, channels]` as the type, layout and device that came in."""
    if layout == "NCHW":
        array = array.transpose(0, 3, 1, 2)
    array = np.ascontiguousarray(array)
    if not is_torch(like):
        return array
    import torch

    return torch.from_numpy(array).to(like.device)


def labels_in(labels: Any, count: int) -> NDArray[np.uint32]:
    """Labels as the library takes them."""
    array = to_numpy(labels)
    if array.ndim != 1 or len(array) != count:
        raise ValueError(f"{count} images need {count} labels in one dimension, got shape {array.shape}")
    if not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"labels must be whole numbers, got {array.dtype}")
    if count and int(array.min()) < 0:
        raise ValueError(f"labels count from 0; image {int(array.argmin())} has label {int(array.min())}")
    return np.ascontiguousarray(array.astype(np.uint32))


def labeled(images: Any, labels: Any, layout: Layout, classes: list[str], name: str) -> _bandwise.Images:
    """Images with labels, as the library takes them."""
    pixels = images_in(images, layout)
    return _bandwise.Images(pixels, labels_in(labels, len(pixels)), classes, name)


def data(
    spec: str, *, split: str = "test", limit: int | None = None, layout: Layout = "NCHW"
) -> tuple[NDArray[np.float32], NDArray[np.uint32]]:
    """Images and labels of a data set that the library reads: `cifar10:DIR`, `imagefolder:DIR,size=64`, `synthetic`.

    >>> import bandwise as bw
    >>> images, labels = bw.data("synthetic:test_count=8")
    >>> images.shape, labels.shape
    ((8, 3, 32, 32), (8,))
    """
    check_layout(layout)
    images, labels = _bandwise.Images.open(spec, split, limit).arrays()
    if layout == "NCHW":
        images = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    return images, labels
