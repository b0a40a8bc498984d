"""Convolutions whose filters are written in a cosine basis (Lukasik, Gavrikov, Keuper and Keuper, TMLR 2023)."""

from __future__ import annotations

import math
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

Kind = Literal["weight", "signal"]
Padding = Literal["zeros", "reflect", "replicate", "circular"]


def dct_basis(height: int, width: int | None = None, *, dtype: torch.dtype = torch.float32) -> Tensor:
    """`B[i, j, m, n] = cos(π/width · i·(n + ½)) · cos(π/height · j·(m + ½))`, each image divided by the sum of its absolute
    values: `[width, height, height, width]`, the horizontal frequency first."""
    width = height if width is None else width

    def cosines(side: int) -> Tensor:
        places = torch.arange(side, dtype=torch.float64)
        return torch.cos(math.pi / side * places[:, None] * (places[None] + 0.5))

    basis = torch.einsum("in,jm->ijmn", cosines(width), cosines(height))
    return (basis / basis.abs().sum((2, 3), keepdim=True)).to(dtype)


class _Dct(nn.Module):
    """What both forms share."""

    basis: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | str | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = False,
        padding_mode: Padding = "zeros",
    ) -> None:
        super().__init__()
        # The convolution that it stands for knows what its arguments mean.
        plain = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device="meta"
        )
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size, self.stride, self.dilation = plain.kernel_size, plain.stride, plain.dilation
        self.padding, self.padding_mode = plain.padding, padding_mode
        self._padded = list(plain._reversed_padding_repeated_twice)
        self.register_buffer("basis", dct_basis(*plain.kernel_size), persistent=False)
        self.bias: nn.Parameter | None = nn.Parameter(torch.zeros(out_channels)) if bias else None

    @property
    def frequencies(self) -> int:
        """How many coefficients a filter has."""
        return self.kernel_size[0] * self.kernel_size[1]

    def _convolved(self, x: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
        padding: Any = self.padding
        if self.padding_mode != "zeros":
            x, padding = functional.pad(x, self._padded, mode=self.padding_mode), 0
        return functional.conv2d(x, weight, bias, self.stride, padding, self.dilation, groups)

    def filter_coefficients(self) -> Tensor:
        """`[out, in/groups, width, height]`: the last two are horizontal and vertical frequency."""
        raise NotImplementedError

    def filter_weight(self) -> Tensor:
        """The filters `[out, in/groups, height, width]`."""
        return torch.einsum("oiab,abmn->oimn", self.filter_coefficients(), self.basis)

    @torch.no_grad()
    def set_weight(self, weight: Tensor) -> None:
        """Takes over filters `[out, in/groups, height, width]`."""
        self.set_coefficients(coefficients_of(weight))

    def set_coefficients(self, coefficients: Tensor) -> None:
        """Takes over coefficients `[out, in/groups, width, height]`."""
        raise NotImplementedError


class DctConv2d(_Dct):
    """Weight decomposition: a convolution whose parameter is its filters' coefficients."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        width, height = self.kernel_size[1], self.kernel_size[0]
        shape = (self.out_channels, self.in_channels // self.groups, width, height)
        # The published start: all input channels count, whatever the groups.
        bound = math.sqrt(3) * math.sqrt(2) / math.sqrt(self.in_channels * width * height)
        # In the official shape, so that state dicts go both ways.
        flat = (shape[0] * shape[1], width * height, 1, 1)
        self.coefficients = nn.Parameter(torch.empty(flat).uniform_(-bound, bound))
        self._shape = shape

    def filter_coefficients(self) -> Tensor:
        return self.coefficients.view(self._shape)

    @torch.no_grad()
    def set_coefficients(self, coefficients: Tensor) -> None:
        self.coefficients.copy_(coefficients.reshape(self.coefficients.shape))

    def forward(self, x: Tensor) -> Tensor:
        return self._convolved(x, self.filter_weight(), self.bias, self.groups)


class SignalDctConv2d(_Dct):
    """Signal decomposition: every input channel is expanded into its basis responses, which a 1x1 convolution mixes."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        expanded = self.in_channels * self.frequencies
        self.coefficients = nn.Conv2d(expanded, self.out_channels, 1, groups=self.groups, bias=False)

    def filter_coefficients(self) -> Tensor:
        width, height = self.kernel_size[1], self.kernel_size[0]
        return self.coefficients.weight.view(self.out_channels, self.in_channels // self.groups, width, height)

    @torch.no_grad()
    def set_coefficients(self, coefficients: Tensor) -> None:
        self.coefficients.weight.copy_(coefficients.reshape(self.coefficients.weight.shape))

    def forward(self, x: Tensor) -> Tensor:
        height, width = self.kernel_size
        images = self.basis.view(-1, 1, height, width).repeat(self.in_channels, 1, 1, 1)
        mixed: Tensor = self.coefficients(self._convolved(x, images, None, self.in_channels))
        return mixed if self.bias is None else mixed + self.bias.view(-1, 1, 1)


def coefficients_of(weight: Tensor) -> Tensor:
    """The coefficients `[out, in/groups, width, height]` of filters `[out, in/groups, height, width]`; differentiable."""
    height, width = weight.shape[2:]
    basis = dct_basis(height, width, dtype=torch.float64).reshape(height * width, height * width)
    inverse = torch.linalg.inv(basis).to(weight)
    return (weight.flatten(2) @ inverse).view(*weight.shape[:2], width, height)


def decompose(
    module: nn.Module, kind: Kind = "weight", *, min_kernel_size: int = 3, keep: bool = False
) -> int:
    """Replaces, in place, every convolution whose smaller kernel side is at least `min_kernel_size`; says how many.

    With `keep` the module's function stays; without, coefficients start as published.
    """
    made = 0
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is not nn.Conv2d or min(child.kernel_size) < min_kernel_size:
                continue
            form = DctConv2d if kind == "weight" else SignalDctConv2d
            new = form(
                child.in_channels,
                child.out_channels,
                child.kernel_size,
                child.stride,
                child.padding,
                child.dilation,
                child.groups,
                child.bias is not None,
                child.padding_mode,
            ).to(child.weight)
            if keep:
                new.set_weight(child.weight.detach())
            if child.bias is not None:
                setattr(new, "bias", child.bias)
            new.train(child.training)
            setattr(parent, name, new)
            made += 1
    if made == 0:
        raise ValueError(f"the module has no convolution of {min_kernel_size}x{min_kernel_size} or larger")
    return made


def recompose(module: nn.Module) -> int:
    """Turns every decomposed convolution back, in place, into a plain one of the same filters; says how many."""
    made = 0
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if not isinstance(child, _Dct):
                continue
            weight = child.filter_weight().detach()
            plain = nn.Conv2d(
                child.in_channels,
                child.out_channels,
                cast(Any, child.kernel_size),
                cast(Any, child.stride),
                cast(Any, child.padding),
                cast(Any, child.dilation),
                child.groups,
                child.bias is not None,
                child.padding_mode,
            ).to(weight)
            with torch.no_grad():
                plain.weight.copy_(weight)
            if child.bias is not None:
                plain.bias = child.bias
            setattr(parent, name, plain.train(child.training))
            made += 1
    return made
