"""What models do with frequencies: heat maps, masks, bands, spectra. Results show themselves in notebooks."""

from __future__ import annotations

import html
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from . import _bandwise
from ._arrays import Layout, images_in, labels_in
from ._evaluate import Distance, Records, _check_journal, _classes, _text
from ._models import Model, Network, as_model
from ._progress import Progress, Told

Floats = NDArray[np.float64]
T = TypeVar("T")


@dataclass(frozen=True)
class Figure:
    """A figure: SVG with real text, and the numbers behind it."""

    title: str
    caption: str
    svg: str
    csv: str

    def _repr_svg_(self) -> str:
        return self.svg

    def save(self, file: str | os.PathLike[str]) -> Path:
        """Writes the SVG, or the numbers if the name ends in `.csv`."""
        path = Path(file)
        path.write_text(self.csv if path.suffix == ".csv" else self.svg, encoding="utf-8")
        return path


class Analysis(Generic[T]):
    """Results, one per model (or window, or mask), and the same for readers: lines, records, figures, a page."""

    def __init__(self, results: list[T], findings: _bandwise.Findings) -> None:
        self.results = results
        self._findings = findings

    @property
    def title(self) -> str:
        """What it is."""
        return self._findings.title

    @property
    def lines(self) -> list[str]:
        """What it comes to, line by line."""
        return self._findings.lines

    @property
    def records(self) -> list[dict[str, Any]]:
        """Its numbers with their proof."""
        records: list[dict[str, Any]] = json.loads(self._findings.records)
        return records

    @property
    def tables(self) -> dict[str, str]:
        """CSV texts under their names."""
        return dict(self._findings.tables)

    @property
    def figures(self) -> list[Figure]:
        """Its figures."""
        return [Figure(*parts) for parts in self._findings.figures()]

    def html(self) -> str:
        """A page that needs nothing but itself."""
        return self._findings.html()

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Writes CSV, figures, records and the page into a folder; returns the page."""
        return self._findings.write(os.fspath(folder))

    def __getitem__(self, index: int) -> T:
        return self.results[index]

    def __len__(self) -> int:
        return len(self.results)

    def __str__(self) -> str:
        return "\n".join(self.lines)

    def _repr_html_(self) -> str:
        # A frame of its own: the page's styles do not reach the notebook.
        page = html.escape(self.html(), quote=True)
        return f'<iframe srcdoc="{page}" style="width:100%;height:640px;border:0"></iframe>'


Models = Any


@contextmanager
def _prepared(
    models: Models,
    images: Any,
    labels: Any,
    layout: Layout,
    labels_of_models: Sequence[str] | None,
    progress: bool | Progress,
    name: str,
) -> Iterator[tuple[list[tuple[_bandwise.Model, str]], _bandwise.Images, Progress | None]]:
    """Models with their labels, images and the progress function, for one analysis."""
    several = [as_model(one) for one in (models if isinstance(models, (list, tuple)) else [models])]
    if not several:
        raise ValueError("an analysis needs at least one model")
    names = list(labels_of_models) if labels_of_models is not None else _told_apart(several)
    if len(names) != len(several):
        raise ValueError(f"{len(several)} models and {len(names)} names: name all or none")
    pixels = images_in(images, layout)
    marks = labels_in(labels, len(pixels))
    with ExitStack() as stack:
        cores = [stack.enter_context(model._ready(pixels)) for model in several]
        known = min(cores, key=lambda core: core.num_classes)
        told = stack.enter_context(Told(progress))
        yield list(zip(cores, names)), _bandwise.Images(pixels, marks, _classes(known, None), name), told


def _told_apart(models: Sequence[Model]) -> list[str]:
    names = [model.name for model in models]
    return [f"{name} {index + 1}" if names.count(name) > 1 else name for index, name in enumerate(names)]


@dataclass(frozen=True)
class HeatMap:
    """How often a model is wrong under each Fourier wave."""

    label: str
    rows: NDArray[np.int64]
    """Vertical frequencies, one per row."""
    columns: NDArray[np.int64]
    """Horizontal frequencies, one per column."""
    error: Floats
    """Error rate under each wave, `[rows, columns]`."""
    clean_error: float
    """Error rate without a wave."""
    images: int


def heatmap(
    models: Models,
    images: Any,
    labels: Any,
    *,
    norm: float = 4.0,
    clip: bool = True,
    largest_frequency: int | None = None,
    seed: int = 0,
    names: Sequence[str] | None = None,
    batch_size: int = 250,
    progress: bool | Progress = True,
    layout: Layout = "NCHW",
    name: str = "images",
) -> Analysis[HeatMap]:
    """The Fourier heat map (Yin et al. 2019): how often a model is wrong when one wave of L2 norm `norm` per channel is
    added to every image. The paper takes 4 on CIFAR-10 and 15.7 on ImageNet.

    >>> import bandwise as bw
    >>> images, labels = bw.data("synthetic:test_count=4,size=16")
    >>> model = bw.wrap_callable(lambda x: x.mean(axis=(2, 3)), num_classes=3)
    >>> bw.heatmap(model, images, labels % 3, largest_frequency=2, progress=False)[0].error.shape
    (5, 5)
    """
    config = {"norm": norm, "clip": clip, "largest_frequency": largest_frequency, "seed": seed}
    with _prepared(models, images, labels, layout, names, progress, name) as (cores, data, told):
        found, findings = _bandwise.heatmap(cores, data, json.dumps(config), batch_size, told)
    maps = []
    for one in json.loads(found):
        rows, columns = np.array(one["rows"]), np.array(one["columns"])
        wrong = np.array(one["wrong"], dtype=float).reshape(len(rows), len(columns))
        count = one["images"]
        maps.append(HeatMap(one["label"], rows, columns, wrong / count, one["clean_wrong"] / count, count))
    return Analysis(maps, findings)


@dataclass(frozen=True)
class BandAccuracy:
    """Accuracy on images of which only one window of the spectrum is left."""

    label: str
    window: str
    """`low-pass`, `high-pass`, `band-pass`, `sector` or `without-sector`."""
    start: float
    """Radius in cycles per image, or angle in degrees, where the window begins."""
    end: float
    """Where it ends."""
    correct: int
    images: int

    @property
    def accuracy(self) -> float:
        """Share of images that are right."""
        return self.correct / self.images


Space = Literal["input", "pixels"]


def _space(models: Models, space: Space | None) -> Space:
    """What is known of all: the normalized input of networks of the library, the pixels of others."""
    if space is not None:
        return space
    several = models if isinstance(models, (list, tuple)) else [models]
    return "input" if all(isinstance(model, Network) for model in several) else "pixels"


def band_accuracy(
    models: Models,
    images: Any,
    labels: Any,
    *,
    radius_step: float = 1.0,
    sectors: int = 8,
    keep_mean: bool = False,
    space: Space | None = None,
    names: Sequence[str] | None = None,
    batch_size: int = 250,
    progress: bool | Progress = True,
    layout: Layout = "NCHW",
    name: str = "images",
) -> Analysis[BandAccuracy]:
    """Accuracy through low-pass, high-pass and band-pass windows and sectors of the spectrum.

    `space` says what windows act on: the `"input"` of a network after its normalization, as published (where all models
    are networks of the library, this is the default), or `"pixels"`.
    """
    config = {
        "radius_step": radius_step,
        "sectors": sectors,
        "keep_mean": keep_mean,
        "space": _space(models, space),
    }
    with _prepared(models, images, labels, layout, names, progress, name) as (cores, data, told):
        found, findings = _bandwise.band_accuracy(cores, data, json.dumps(config), batch_size, told)
    rows = [
        BandAccuracy(r["label"], r["window"], r["from"], r["to"], r["correct"], r["images"])
        for r in json.loads(found)
    ]
    return Analysis(rows, findings)


@dataclass(frozen=True)
class PerturbationSpectrum:
    """The spectrum of what an attack added to images."""

    label: str
    power: Floats
    """Mean power, un-shifted `[height, width]`."""
    radial_share: Floats
    """Share of the whole power in each ring of radius 0, 1, 2, …"""
    images: int
    """Images with a perturbation."""


def perturbation_spectrum(
    models: Models,
    images: Any,
    labels: Any,
    *,
    attack: str = "pgd",
    eps: Distance | None = None,
    norm: str | None = None,
    steps: int | None = None,
    step_size: Distance | None = None,
    seed: int = 0,
    names: Sequence[str] | None = None,
    batch_size: int = 250,
    progress: bool | Progress = True,
    layout: Layout = "NCHW",
    name: str = "images",
) -> Analysis[PerturbationSpectrum]:
    """Where in the spectrum an attack's perturbations lie."""
    chosen: dict[str, Any] = {
        "epsilon": None if eps is None else _text(eps),
        "norm": norm,
        "steps": steps,
        "step_size": None if step_size is None else _text(step_size),
    }
    chosen = {"name": attack, **{key: value for key, value in chosen.items() if value is not None}}
    config = json.dumps({"attack": chosen, "seed": seed})
    with _prepared(models, images, labels, layout, names, progress, name) as (cores, data, told):
        found, findings = _bandwise.perturbation_spectrum(cores, data, config, batch_size, told)
    rows = []
    for one in json.loads(found):
        power = np.array(one["power"]).reshape(one["height"], one["width"])
        rows.append(PerturbationSpectrum(one["label"], power, np.array(one["radial_share"]), one["images"]))
    return Analysis(rows, findings)


@dataclass(frozen=True)
class GradientSpectrum:
    """The spectrum of a model's input gradient."""

    label: str
    amplitude: Floats
    """Mean amplitude, un-shifted `[height, width]`."""
    power: Floats
    """Mean power, un-shifted `[height, width]`."""
    low_frequency_bias: float | None
    """JaFR's bias of the mean amplitudes: above 1, the gradient lives in low frequencies."""
    mean_norm: float
    """Mean L2 norm of the gradients."""
    images: int
    zero: int
    """Images whose gradient is zero."""


def gradient_spectrum(
    models: Models,
    images: Any,
    labels: Any,
    *,
    names: Sequence[str] | None = None,
    batch_size: int = 250,
    progress: bool | Progress = True,
    layout: Layout = "NCHW",
    name: str = "images",
) -> Analysis[GradientSpectrum]:
    """The Fourier spectrum of the input gradient: which frequencies of an image a model looks at."""
    with _prepared(models, images, labels, layout, names, progress, name) as (cores, data, told):
        found, findings = _bandwise.gradient_spectrum(cores, data, batch_size, told)
    rows = []
    for one in json.loads(found):
        shape = one["height"], one["width"]
        amplitude, power = np.array(one["amplitude"]).reshape(shape), np.array(one["power"]).reshape(shape)
        norm = float("nan") if one["mean_norm"] is None else one["mean_norm"]
        bias = one["low_frequency_bias"]
        rows.append(GradientSpectrum(one["label"], amplitude, power, bias, norm, one["images"], one["zero"]))
    return Analysis(rows, findings)


@dataclass(frozen=True)
class Mask:
    """A learned Fourier mask."""

    label: str
    """The model, class or image that it belongs to."""
    values: NDArray[np.float32]
    """Gains in [0, 1], un-shifted `[height, width]`: the mean color is at `[0, 0]`."""
    details: dict[str, Any]
    """What is known of it: how learning went, what it leaves of the accuracy."""

    @property
    def centered(self) -> NDArray[np.float32]:
        """Even part, zero frequency in the center, as figures show it."""
        height, width = self.values.shape
        opposite = self.values[np.ix_(-np.arange(height) % height, -np.arange(width) % width)]
        return np.fft.fftshift((self.values + opposite) / np.float32(2))


def fourier_mask(
    models: Models,
    images: Any,
    labels: Any,
    *,
    per_class: bool = False,
    per_image: bool = False,
    folder: str | os.PathLike[str] | None = None,
    learning: dict[str, Any] | None = None,
    space: Space | None = None,
    names: Sequence[str] | None = None,
    batch_size: int = 250,
    progress: bool | Progress = True,
    layout: Layout = "NCHW",
    name: str = "images",
) -> Analysis[Mask]:
    """Learns which input frequencies a model needs to answer as it does (Karantzas et al. 2022): one mask for each
    model, for each class, or for each image. `space` is as for :func:`band_accuracy`.

    `learning` sets what the paper leaves open (`epochs`, `decay`, `learning_rate`, `max_steps`, …). With a `folder`
    masks and the state of learning are kept, and the same call goes on after a stop.
    """
    if per_class and per_image:
        raise ValueError("per_class and per_image exclude each other")
    several = models if isinstance(models, (list, tuple)) else [models]
    for model in several:
        _check_journal(as_model(model), folder)
    config: dict[str, Any] = {"learning": learning or {}, "space": _space(models, space)}
    if not per_image:
        config["per_class"] = per_class
    learn: Callable[..., Any] = _bandwise.image_masks if per_image else _bandwise.fourier_mask
    with ExitStack() as stack:
        kept = os.fspath(folder) if folder is not None else stack.enter_context(tempfile.TemporaryDirectory())
        cores, data, told = stack.enter_context(
            _prepared(several, images, labels, layout, names, progress, name)
        )
        values, known, findings = learn(cores, data, json.dumps(config), kept, batch_size, told)
    details = json.loads(known)
    masks = [Mask(d["label"], v, d) for v, d in zip(values, details)]
    return Analysis(masks, findings)


def report(*results: Any, out: str | os.PathLike[str] = "report.html") -> Path:
    """One page of results in memory, run folders, folders of analyses and files of records, side by side.

    >>> import tempfile, pathlib, bandwise as bw
    >>> images, labels = bw.data("synthetic:test_count=8")
    >>> model = bw.wrap_callable(lambda x: x.mean(axis=(2, 3)), num_classes=3)
    >>> found = bw.evaluate(model, images, labels % 3, progress=False)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     page = bw.report(found, out=pathlib.Path(folder) / "report.html").read_text()
    >>> "accuracy" in page
    True
    """
    if not results:
        raise ValueError("a report needs at least one result")
    with tempfile.TemporaryDirectory() as scratch:
        folders: list[Path] = []
        records: list[tuple[str, str]] = []
        for number, result in enumerate(results, 1):
            if isinstance(result, Records):
                model = result.records[0].get("model") or "model"
                kind = type(result).__name__.replace("Evaluation", "").lower() or "evaluation"
                records.append((_file_name(f"{number} {model} {kind}"), json.dumps(result.records)))
            elif isinstance(result, Analysis):
                folder = Path(scratch) / _file_name(f"{number} {result.title}")
                result.save(folder)
                folders.append(folder)
            else:
                folders.append(Path(os.fspath(result)))
        return _bandwise.page(folders, records, scratch, os.fspath(out))


def _file_name(text: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in text)
