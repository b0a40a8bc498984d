"""The compiled part: arrays in, JSON and arrays out. `bandwise` is its typed front."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Findings",
    "Images",
    "Model",
    "__version__",
    "attack",
    "attacks",
    "band_accuracy",
    "corrupt",
    "corruptions",
    "evaluate",
    "evaluate_corruptions",
    "fourier_mask",
    "gradient_spectrum",
    "heatmap",
    "image_masks",
    "page",
    "perturbation_spectrum",
]

__version__: str

_Progress: TypeAlias = Callable[[str, int, int, str], None]

@final
class Model:
    @staticmethod
    def load(
        weights: str | Path,
        architecture: str | None,
        classes: int | None,
        channels: int | None,
        width: int | None,
        mean: list[float] | None,
        std: list[float] | None,
        allow_mismatch: bool,
    ) -> Model: ...
    @staticmethod
    def foreign(
        object: Any,
        classes: int,
        has_gradients: bool,
        name: str,
        kind: str,
        sha256: str,
        device: str,
        precision: str,
        warnings: list[str],
    ) -> Model: ...
    def logits(self, images: NDArray[np.float32], batch_size: int) -> NDArray[np.float32]: ...
    @property
    def num_classes(self) -> int: ...
    @property
    def has_gradients(self) -> bool: ...
    @property
    def name(self) -> str: ...
    @property
    def sha256(self) -> str: ...
    @property
    def description(self) -> str: ...
    @property
    def warnings(self) -> list[str]: ...

@final
class Images:
    def __new__(
        cls, pixels: NDArray[Any], labels: NDArray[np.uint32], classes: list[str], name: str
    ) -> Images: ...
    @staticmethod
    def open(spec: str, split: str, limit: int | None) -> Images: ...
    def arrays(self) -> tuple[NDArray[np.float32], NDArray[np.uint32]]: ...
    @property
    def sha256(self) -> str: ...
    @property
    def classes(self) -> list[str]: ...
    def __len__(self) -> int: ...

@final
class Findings:
    @property
    def title(self) -> str: ...
    @property
    def lines(self) -> list[str]: ...
    @property
    def records(self) -> str: ...
    @property
    def tables(self) -> list[tuple[str, str]]: ...
    def figures(self) -> list[tuple[str, str, str, str]]: ...
    def html(self) -> str: ...
    def write(self, folder: str | Path) -> Path: ...

def evaluate(
    model: Model,
    images: Images,
    attacks: list[str],
    given: str,
    seed: int,
    journal: str | Path | None,
    shard: str | None,
    save_adversarial: str | Path | None,
    batch_size: int,
    progress: _Progress | None,
) -> str: ...
def attack(
    model: Model,
    images: Images,
    name: str,
    given: str,
    seed: int,
    early_stop: bool,
    batch_size: int,
    progress: _Progress | None,
) -> tuple[NDArray[np.float32], str]: ...
def attacks() -> str: ...
def corrupt(
    images: NDArray[np.uint8],
    corruption: str,
    severity: int,
    protocol: str | None,
    seed: int,
    frost: str | Path | None,
    first_index: int,
) -> NDArray[np.uint8]: ...
def corruptions() -> str: ...
def evaluate_corruptions(
    model: Model,
    images: Images,
    config: str,
    folder: str | Path | None,
    batch_size: int,
    progress: _Progress | None,
) -> str: ...
def heatmap(
    models: list[tuple[Model, str]], images: Images, config: str, batch_size: int, progress: _Progress | None
) -> tuple[str, Findings]: ...
def band_accuracy(
    models: list[tuple[Model, str]], images: Images, config: str, batch_size: int, progress: _Progress | None
) -> tuple[str, Findings]: ...
def perturbation_spectrum(
    models: list[tuple[Model, str]], images: Images, config: str, batch_size: int, progress: _Progress | None
) -> tuple[str, Findings]: ...
def gradient_spectrum(
    models: list[tuple[Model, str]], images: Images, batch_size: int, progress: _Progress | None
) -> tuple[str, Findings]: ...
def fourier_mask(
    models: list[tuple[Model, str]],
    images: Images,
    config: str,
    folder: str | Path,
    batch_size: int,
    progress: _Progress | None,
) -> tuple[NDArray[np.float32], str, Findings]: ...
def image_masks(
    models: list[tuple[Model, str]],
    images: Images,
    config: str,
    folder: str | Path,
    batch_size: int,
    progress: _Progress | None,
) -> tuple[NDArray[np.float32], str, Findings]: ...
def page(
    runs: list[str | Path] | list[Path], extra: list[tuple[str, str]], scratch: str | Path, out: str | Path
) -> Path: ...
