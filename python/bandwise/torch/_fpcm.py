"""The frequency preference control module (Bu, Huang and Cui, ICCV 2023)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn


class FPCM(nn.Module):
    """Splits a feature map `[n, c, h, w]` into a low and a high part, and weighs them per image and channel.

    With the P = h·w positions flattened row after row, `low` is the map times a Gaussian of width D0 in its
    one-dimensional spectrum, `high` the rest, and the output `ω·low + (1 − ω)·high` with
    `ω = ½ + ½·σ(projection(mean over positions))`.

    `projection="depthwise"` is the block of ResNet-18: its D0 goes from P div 2 to P div 8 with `progress` from 0 to 1
    (:func:`set_progress`), and is P div 8 in evaluation mode. `projection="full"` is the block of WideResNet, whose D0 is
    P div 8 always. `cutoff_start` and `cutoff_end` replace the divisors. Parameters have the official names.
    """

    progress: float

    def __init__(
        self,
        channels: int,
        *,
        projection: Literal["depthwise", "full"] = "depthwise",
        cutoff_start: int | None = None,
        cutoff_end: int = 8,
    ) -> None:
        super().__init__()
        if projection not in ("depthwise", "full"):
            raise ValueError(f"projection must be depthwise or full, got {projection!r}")
        groups = channels if projection == "depthwise" else 1
        self.projection = nn.Conv1d(channels, channels, 1, groups=groups)
        self.cutoff_start = cutoff_start or (2 if projection == "depthwise" else 8)
        self.cutoff_end = cutoff_end
        self.progress = 0.0

    def cutoff(self, positions: int) -> float:
        """D0 for so many positions, as training stands; its last value in evaluation mode."""
        first, last = positions // self.cutoff_start, positions // self.cutoff_end
        return first + (last - first) * (self.progress if self.training else 1.0)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        positions = h * w
        flat = x.flatten(2)
        place = torch.arange(positions // 2 + 1, device=x.device, dtype=torch.float64)
        cutoff = self.cutoff(positions)
        if cutoff <= 0:
            raise ValueError(f"feature maps of {h}x{w} are too small for a cut-off of 1/{self.cutoff_end} of them")
        gain = torch.exp(-0.5 * (place / cutoff) ** 2).to(x.dtype)
        low = torch.fft.irfft(torch.fft.rfft(flat) * gain, n=positions)
        mean = flat.mean(2, keepdim=True)
        omega = 0.5 + 0.5 * torch.sigmoid(self.projection(mean))
        mixed: Tensor = omega * low + (1 - omega) * (flat - low)
        return mixed.view(n, c, h, w)


def set_progress(module: nn.Module, progress: float) -> None:
    """Tells every :class:`FPCM` in a module how far training is, 0 to 1: `epoch / epochs`, epochs counted from 1."""
    for part in module.modules():
        if isinstance(part, FPCM):
            part.progress = progress
