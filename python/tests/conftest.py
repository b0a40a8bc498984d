"""A small network in NumPy stands for a foreign model; torch is used where it is installed."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bandwise as bw

try:
    import torch
except ImportError:
    torch = None  # type: ignore[assignment]
else:
    # Threads that wait for each other are slow on a busy machine.
    torch.set_num_threads(1)

SKIPPED: list[str] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch is not None:
        return
    for item in items:
        if "torch" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="torch is not installed"))
            SKIPPED.append(item.name)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if SKIPPED:
        terminalreporter.write_sep(
            "!", f"{len(SKIPPED)} TESTS THAT NEED torch WERE SKIPPED: install torch to run them", red=True
        )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "torch: needs torch")


@dataclass
class TwoLayers:
    """`relu(x W + b) V`, with its vector-Jacobian product, on images `[n, 3, 8, 8]`."""

    classes: int = 4
    seed: int = 0
    calls: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        random = np.random.default_rng(self.seed)
        self.first = random.normal(size=(3 * 8 * 8, 24)).astype(np.float32) / 4
        self.bias = random.normal(size=24).astype(np.float32) / 4
        self.second = random.normal(size=(24, self.classes)).astype(np.float32)

    @property
    def weights(self) -> list[np.ndarray]:
        return [self.first, self.bias, self.second]

    def hidden(self, images: np.ndarray) -> np.ndarray:
        return (images.reshape(len(images), -1) - 0.5) @ self.first + self.bias

    def logits(self, images: np.ndarray) -> np.ndarray:
        self.calls.append("logits")
        return np.maximum(self.hidden(images), 0) @ self.second

    def vjp(self, images: np.ndarray, cotangent: np.ndarray) -> np.ndarray:
        self.calls.append("vjp")
        slope = (cotangent @ self.second.T) * (self.hidden(images) > 0)
        return (slope @ self.first.T).reshape(images.shape)

    def model(self, **options: Any) -> bw.Model:
        options = {"num_classes": self.classes, "name": "two layers", "weights": self.weights, **options}
        return bw.wrap_callable(self.logits, self.vjp, **options)


@pytest.fixture
def network() -> TwoLayers:
    return TwoLayers()


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(7).uniform(size=(40, 3, 8, 8)).astype(np.float32)


@pytest.fixture
def labels(network: TwoLayers, images: np.ndarray) -> np.ndarray:
    """What the network says, but for every tenth image."""
    found = network.logits(images).argmax(1)
    found[::10] = (found[::10] + 1) % network.classes
    network.calls.clear()
    return found


def golden() -> Path:
    """The folder of reference values; tests that need it are skipped where it may be missing."""
    given = os.environ.get("BANDWISE_GOLDEN", "")
    if given == "required":
        return Path(__file__).parents[3] / "shared" / "golden"
    folder = Path(given) if given else Path(__file__).parents[3] / "shared" / "golden"
    if "BANDWISE_GOLDEN" in os.environ and not given or not folder.is_dir():
        pytest.skip("the reference values are not here")
    return folder


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    kinds = {"F32": np.float32, "F64": np.float64, "I64": np.int64, "U8": np.uint8, "I8": np.int8, "I32": np.int32}
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    found = {}
    for name, entry in header.items():
        if name != "__metadata__":
            begin, end = (8 + length + offset for offset in entry["data_offsets"])
            values = np.frombuffer(data[begin:end], kinds[entry["dtype"]])
            found[name] = values.reshape(entry["shape"]).copy()
    return found
