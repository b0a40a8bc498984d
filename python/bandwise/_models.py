"""Models: networks of the library, modules of torch, functions."""

from __future__ import annotations

import hashlib
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _bandwise
from ._arrays import Layout, check_layout, images_in, to_numpy

Array = NDArray[np.float32]


class Model(ABC):
    """What can be judged: logits from images in [0, 1]. :func:`load`, :func:`wrap` and :func:`wrap_callable` make it."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What it is called in records."""

    @contextmanager
    def _ready(self, images: NDArray[Any]) -> Iterator[_bandwise.Model]:
        """The model as the library takes it, for one piece of work on such images."""
        yield self._core(images)

    @abstractmethod
    def _core(self, images: NDArray[Any]) -> _bandwise.Model: ...

    def logits(self, images: Any, *, layout: Layout = "NCHW", batch_size: int = 250) -> Array:
        """Logits `[n, classes]` of images in [0, 1]."""
        pixels = images_in(images, layout)
        if pixels.dtype == np.uint8:
            pixels = pixels.astype(np.float32) / np.float32(255)
        with self._ready(pixels) as core:
            return core.logits(pixels, batch_size)

    def __repr__(self) -> str:
        return f"<bandwise model {self.name}>"


class Network(Model):
    """A network of the library; :func:`load` reads it."""

    def __init__(self, core: _bandwise.Model) -> None:
        self._model = core

    @property
    def name(self) -> str:
        return self._model.name

    @property
    def num_classes(self) -> int:
        """How many classes it knows."""
        return self._model.num_classes

    @property
    def description(self) -> str:
        """One line: architecture, size, normalization, and where each comes from."""
        return self._model.description

    @property
    def warnings(self) -> list[str]:
        """What makes its numbers doubtful."""
        return self._model.warnings

    def _core(self, images: NDArray[Any]) -> _bandwise.Model:
        return self._model


def load(
    file: str | os.PathLike[str],
    *,
    architecture: str | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    num_classes: int | None = None,
    channels: int | None = None,
    width: int | None = None,
    allow_mismatch: bool = False,
) -> Network:
    """Reads a network of the library: safetensors, PyTorch's `.pt`, `.pth`, `.th`, or a run folder.

    What is left open is read from the file. `mean` and `std` normalize pixels in [0, 1] inside the network. Weights that
    do not fit are a `ValueError` that says which architecture would.
    """
    numbers = [None if values is None else [float(value) for value in values] for values in (mean, std)]
    core = _bandwise.Model.load(
        os.fspath(file), architecture, num_classes, channels, width, numbers[0], numbers[1], allow_mismatch
    )
    return Network(core)


class _Foreign(Model):
    """A model of someone else's; its number of classes is asked of it where nobody says it."""

    def __init__(self, name: str, num_classes: int | None) -> None:
        self._name = name
        self._num_classes = num_classes

    @property
    def name(self) -> str:
        return self._name

    def logits_of(self, images: Array) -> Array:
        raise NotImplementedError

    def _classes(self, images: NDArray[Any]) -> int:
        if self._num_classes is None:
            first = images[:1]
            if first.dtype == np.uint8:
                first = first.astype(np.float32) / np.float32(255)
            self._num_classes = int(self.logits_of(np.ascontiguousarray(first)).shape[1])
        return self._num_classes


def _as_logits(found: Any, count: int, name: str) -> Array:
    logits = to_numpy(found)
    if logits.ndim != 2 or len(logits) != count:
        raise ValueError(f"{name} must return logits [{count}, classes], got shape {logits.shape}")
    return np.ascontiguousarray(logits, dtype=np.float32)


class Functions(_Foreign):
    """Functions of NumPy arrays; :func:`wrap_callable` makes it."""

    def __init__(
        self,
        logits: Callable[[Any], Any],
        vjp: Callable[[Any, Any], Any] | None,
        num_classes: int | None,
        layout: Layout,
        name: str,
        sha256: str,
    ) -> None:
        super().__init__(name, num_classes)
        self._logits, self._vjp, self._layout, self._sha256 = logits, vjp, layout, sha256
        self.identified = True

    def _given(self, images: Array) -> Array:
        if self._layout == "NHWC":
            return images
        return np.ascontiguousarray(images.transpose(0, 3, 1, 2))

    def logits_of(self, images: Array) -> Array:
        return _as_logits(self._logits(self._given(images)), len(images), self.name)

    # What the compiled part calls: `logits`, and `record` for a graph.
    def record(self, images: Array) -> tuple[Array, Callable[[Array], Array]]:
        given = self._given(images)
        vjp = self._vjp
        assert vjp is not None

        def pull_back(cotangent: Array) -> Array:
            gradient = to_numpy(vjp(given, cotangent))
            if gradient.shape != given.shape:
                raise ValueError(f"vjp must return a gradient of shape {given.shape}, got {gradient.shape}")
            if self._layout == "NCHW":
                gradient = gradient.transpose(0, 2, 3, 1)
            return np.ascontiguousarray(gradient, dtype=np.float32)

        return _as_logits(self._logits(given), len(images), self.name), pull_back

    def _core(self, images: NDArray[Any]) -> _bandwise.Model:
        asked = _Asked(self.logits_of, self.record)
        gradients = self._vjp is not None
        return _bandwise.Model.foreign(
            asked, self._classes(images), gradients, self.name, "callable", self._sha256, "cpu", "f32", []
        )


class _Asked:
    """What the compiled part sees of a model."""

    def __init__(self, logits: Callable[[Array], Array], record: Callable[[Array], Any]) -> None:
        self.logits = logits
        self.record = record


def wrap_callable(
    logits: Callable[[Any], Any],
    vjp: Callable[[Any, Any], Any] | None = None,
    *,
    num_classes: int | None = None,
    layout: Layout = "NCHW",
    name: str | None = None,
    weights: Any = None,
) -> Model:
    """Anything that computes logits: JAX, ONNX Runtime, TensorFlow, plain NumPy.

    `logits(images)` gets float32 in [0, 1] in this `layout` and returns `[n, classes]`. `vjp(images, cotangent)` returns
    the gradient of `sum(cotangent * logits(images))` with respect to the images; without it, attacks that follow
    gradients say why they cannot run, and all others do. `name` stands in records. `weights` is whatever tells this
    model from another one (arrays, bytes, files, or a mapping or sequence of them): a journal refuses to go on with a
    model of another hash.

    >>> import numpy as np, bandwise as bw
    >>> weights = np.random.default_rng(0).normal(size=(3 * 32 * 32, 10)).astype(np.float32)
    >>> model = bw.wrap_callable(lambda x: x.reshape(len(x), -1) @ weights,
    ...                          lambda x, c: (c @ weights.T).reshape(x.shape), weights=weights)
    >>> images, labels = bw.data("synthetic:test_count=20")
    >>> bw.evaluate(model, images, labels, attack="fgsm", progress=False).total
    20
    """
    check_layout(layout)
    known = name is not None or weights is not None
    name = name or str(getattr(logits, "__name__", type(logits).__name__))
    hashed = hashlib.sha256(f"callable {name}".encode())
    _add(hashed, weights)
    model = Functions(logits, vjp, num_classes, layout, name, hashed.hexdigest())
    model.identified = known
    return model


def _add(hashed: Any, value: Any) -> None:
    """Hashes arrays, tensors, bytes, files, numbers, text, and mappings and sequences of them."""
    if isinstance(value, Path):
        with value.open("rb") as file:
            for part in iter(lambda: file.read(1 << 20), b""):
                hashed.update(part)
    elif isinstance(value, (bytes, bytearray)):
        hashed.update(value)
    elif isinstance(value, Mapping):
        for key in sorted(value, key=str):
            hashed.update(f"{key}:".encode())
            _add(hashed, value[key])
    elif isinstance(value, (list, tuple)):
        for item in value:
            _add(hashed, item)
    elif value is None or isinstance(value, (bool, int, float, str)):
        hashed.update(f"{type(value).__name__} {value!r};".encode())
    elif "torch" in sys.modules and isinstance(value, sys.modules["torch"].Tensor):
        tensor = value.detach().cpu().contiguous()
        hashed.update(f"{tensor.dtype} {tuple(tensor.shape)};".encode())
        hashed.update(tensor.reshape(-1).view(sys.modules["torch"].uint8).numpy().tobytes())
    else:
        array = np.ascontiguousarray(to_numpy(value))
        hashed.update(f"{array.dtype} {array.shape};".encode())
        hashed.update(array.tobytes())


class TorchModule(_Foreign):
    """A `torch.nn.Module`; :func:`wrap` makes it."""

    def __init__(self, module: Any, num_classes: int | None, device: Any, name: str | None) -> None:
        super().__init__(name or type(module).__name__, num_classes)
        import torch

        self.module = module
        tensors = [*module.parameters(), *module.buffers()]
        floats = [tensor for tensor in tensors if tensor.is_floating_point()]
        places = {tensor.device for tensor in tensors}
        if device is not None:
            module.to(device)
        elif len(places) > 1:
            raise ValueError(
                f"the module's tensors are on {', '.join(sorted(map(str, places)))}; say with device= where images go"
            )
        self._device = torch.device(device) if device is not None else next(iter(places), torch.device("cpu"))
        self._dtype = floats[0].dtype if floats else torch.float32

    def _tensor(self, images: Array) -> Any:
        import torch

        tensor = torch.from_numpy(images).to(self._device)
        # As PyTorch's own loops have it: contiguous, so that the same kernels run.
        return tensor.permute(0, 3, 1, 2).contiguous().to(self._dtype)

    def logits_of(self, images: Array) -> Array:
        import torch

        with torch.no_grad():
            found = self.module(self._tensor(images))
        return _as_logits(self._checked(found).float(), len(images), self.name)

    def _checked(self, found: Any) -> Any:
        import torch

        if not isinstance(found, torch.Tensor):
            raise ValueError(
                f"{self.name} returned {type(found).__name__}, not a tensor of logits; wrap it in a module that does"
            )
        return found

    def _record(self, images: Array) -> tuple[Array, Callable[[Array], Array]]:
        import torch

        with torch.inference_mode(False), torch.enable_grad():
            pixels = self._tensor(images).requires_grad_(True)
            found = self._checked(self.module(pixels))

        def pull_back(cotangent: Array) -> Array:
            gradient = None
            if found.requires_grad:
                slope = torch.from_numpy(cotangent).to(found)
                # Of the pixels alone: gradients of parameters are neither computed nor touched.
                (gradient,) = torch.autograd.grad(found, pixels, slope, retain_graph=True, allow_unused=True)
            if gradient is None:
                return np.zeros(images.shape, np.float32)
            changed: Array = gradient.float().permute(0, 2, 3, 1).contiguous().cpu().numpy()
            return changed

        return _as_logits(found.detach().float(), len(images), self.name), pull_back

    def _sha256(self) -> str:
        """Over everything that can be hashed: what the module looks like, its tensors, its plain settings."""
        import torch

        hashed = hashlib.sha256(f"{type(self.module).__module__}.{type(self.module).__qualname__}".encode())
        hashed.update(repr(self.module).encode())
        _add(hashed, {key: value for key, value in self.module.state_dict().items() if torch.is_tensor(value)})
        _add(hashed, dict(self.module.named_buffers()))
        plain = (bool, int, float, str, tuple, list, torch.Tensor)
        for place, part in self.module.named_modules():
            settings = {k: v for k, v in vars(part).items() if k[:1] != "_" and k != "training"}
            for key in sorted(settings):
                if isinstance(settings[key], plain):
                    hashed.update(f"{place}.{key}=".encode())
                    _add_plain(hashed, settings[key])
        return hashed.hexdigest()

    def _core(self, images: NDArray[Any]) -> _bandwise.Model:
        still = [place or "the module" for place, part in self.module.named_modules() if part.training]
        doubts = []
        if still:
            doubts.append(f"{still[0]} stays in training mode whatever is asked of it: its answers may be random")
        return _bandwise.Model.foreign(
            _Asked(self.logits_of, self._record),
            self._classes(images),
            True,
            self.name,
            "torch.nn.Module",
            self._sha256(),
            str(self._device),
            str(self._dtype).replace("torch.", "").replace("bfloat", "bf").replace("float", "f"),
            doubts,
        )

    @contextmanager
    def _ready(self, images: NDArray[Any]) -> Iterator[_bandwise.Model]:
        modes = [(part, part.training) for part in self.module.modules()]
        self.module.eval()
        try:
            yield self._core(images)
        finally:
            for part, training in modes:
                part.training = training


def _add_plain(hashed: Any, value: Any) -> None:
    try:
        _add(hashed, value)
    except (TypeError, ValueError):
        hashed.update(type(value).__name__.encode())


def wrap(module: Any, *, num_classes: int | None = None, device: Any = None, name: str | None = None) -> Model:
    """A `torch.nn.Module` that returns logits `[n, classes]` of images `[n, channels, height, width]` in [0, 1].

    Normalization belongs into the module. It is judged in evaluation mode; the mode that each part was in is
    restored, and gradients of parameters are never touched. `device` moves the module; without it, images go where its
    parameters are.
    """
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(module, torch.nn.Module):
        raise TypeError(f"wrap takes a torch.nn.Module, got {type(module).__name__}; see load and wrap_callable")
    return TorchModule(module, num_classes, device, name)


def as_model(model: Any) -> Model:
    """A model; a module of torch is wrapped."""
    if isinstance(model, Model):
        return model
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(model, torch.nn.Module):
        return wrap(model)
    raise TypeError(f"{type(model).__name__} is no model; make one with bandwise.load, wrap or wrap_callable")
