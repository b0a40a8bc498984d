"""Jacobian frequency regularization (Chan, Ong and Tan, IJCAI 2022)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Reduction = Literal["sum", "sumlog", "product"]


def jafr(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    reduction: Reduction = "sum",
    max_power: float = 1.0,
    ignore_mean: bool = False,
    temperature: float = 1.0,
) -> Tensor:
    """The low-frequency bias r of the input gradient: the loss is `cross-entropy − λ·r`, λ = 0.001 in the paper, and below
    0 for a bias to high frequencies.

    J is the gradient of the batch's mean cross-entropy at `images` `[n, c, h, w]`, in the mode that the model is in. The
    result carries a graph through it (double backward).
    """
    with torch.enable_grad():
        pixels = images.detach().requires_grad_(True)
        loss = functional.cross_entropy(model(pixels), labels)
        (gradient,) = torch.autograd.grad(loss, pixels, create_graph=True)
    return frequency_bias(
        mean_amplitudes(gradient),
        reduction=reduction,
        max_power=max_power,
        ignore_mean=ignore_mean,
        temperature=temperature,
    )


def mean_amplitudes(gradient: Tensor) -> Tensor:
    """Mean over images and channels of `|FFT2(J)|`, frequencies from 0 to Nyquist: `[h/2 + 1, w/2 + 1]`."""
    spectrum: Tensor = torch.fft.rfft2(gradient)
    amplitudes = spectrum.abs().mean((0, 1))
    return amplitudes[: gradient.shape[2] // 2 + 1]


def frequency_bias(
    amplitudes: Tensor,
    *,
    reduction: Reduction = "sum",
    max_power: float = 1.0,
    ignore_mean: bool = False,
    temperature: float = 1.0,
) -> Tensor:
    """r of a map of amplitudes, zero frequency first; computed in logarithms, where the products do not overflow."""
    if reduction not in ("sum", "sumlog", "product"):
        raise ValueError(f"reduction must be sum, sumlog or product, got {reduction!r}")
    if ignore_mean:
        keep = torch.ones_like(amplitudes)
        keep[0, 0] = 0
        amplitudes = amplitudes * keep
    logs = torch.log(amplitudes + 1e-5)
    rows, columns = amplitudes.shape

    def powers(side: int) -> Tensor:
        return torch.linspace(max_power, -max_power, side, dtype=logs.dtype, device=logs.device) + 1e-5

    by_row, by_column = logs @ powers(columns), powers(rows) @ logs
    scale = torch.log(torch.tensor(temperature, dtype=logs.dtype, device=logs.device))
    if reduction == "sum":
        return torch.logsumexp(torch.cat([by_row, by_column]), 0) - scale
    total = by_row.sum() + by_column.sum()
    return total if reduction == "sumlog" else total - scale
