"""Filter frequency regularization (Lukasik, Gavrikov, Keuper and Keuper, TMLR 2023)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from ._dct import _Dct, coefficients_of

Penalty = Literal["high", "weighted", "monotone"]


def filter_frequency_penalty(
    module: nn.Module,
    penalty: Penalty = "high",
    *,
    low_dominance: bool = False,
    depth: float = 3.0,
) -> Tensor:
    """A differentiable scalar to add to the loss, times a λ of one's own (0.01 in the official examples).

    With n[i, j] the norm of all coefficients of frequency (i, j) in a layer, `"high"` is `Σ max(i, j)·n[i, j]` over rings
    above half of the kernel, `"weighted"` is `Σ (i² + j²)·n[i, j]`, `"monotone"` asks that norms do not grow from one
    anti-diagonal to the next; `low_dominance` adds what exceeds the mean's norm. The first ⌊L / depth⌋ + 1 of L layers
    count: the decomposed ones if there are any (:func:`decompose`), else all plain convolutions of 3x3 or larger.
    """
    if penalty not in ("high", "weighted", "monotone"):
        raise ValueError(f"penalty must be high, weighted or monotone, got {penalty!r}")
    if not depth >= 1:
        raise ValueError(f"depth must be at least 1, got {depth}")
    parts = list(module.modules())
    layers: list[_Dct | nn.Conv2d] = [part for part in parts if isinstance(part, _Dct)]
    if not layers:
        layers = [part for part in parts if isinstance(part, nn.Conv2d) and min(part.kernel_size) >= 3]
    if not layers:
        raise ValueError("the module has no convolution of 3x3 or larger to act on")
    counted = layers[: layers_counted(len(layers), depth)]
    return torch.stack([_of_layer(layer, penalty, low_dominance) for layer in counted]).sum()


def layers_counted(layers: int, depth: float) -> int:
    """How many of so many layers count."""
    return min(layers, int(layers // depth) + 1)


def _of_layer(layer: _Dct | nn.Conv2d, penalty: Penalty, low_dominance: bool) -> Tensor:
    coefficients = layer.filter_coefficients() if isinstance(layer, _Dct) else coefficients_of(layer.weight)
    # The gradient of a norm of zero is zero.
    norms = torch.linalg.vector_norm(coefficients, dim=(0, 1))
    width, height = norms.shape
    places = [(i, j) for i in range(width) for j in range(height)]

    def above(i: int, j: int, margin: int) -> bool:
        return 2 * i + margin > width or 2 * j + margin > height

    total: Tensor = norms.new_zeros(())
    if penalty == "high":
        total = total + sum(max(i, j) * norms[i, j] for i, j in places if above(i, j, 0))
    elif penalty == "weighted":
        total = total + sum((i * i + j * j) * norms[i, j] for i, j in places if above(i, j, 2))
    else:
        for i, j in places:
            for k, l in places:
                if k + l == i + j + 1:
                    total = total + torch.relu(norms[k, l] - norms[i, j])
    if low_dominance and penalty != "monotone" and height > 1 and width > 1:
        total = total + sum(torch.relu(norms[at] - norms[0, 0]) for at in ((0, 1), (1, 0), (1, 1)))
    return total
