"""Accuracy clean, under attacks and under corruptions; adversarial images."""

from __future__ import annotations

import html
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _bandwise
from ._arrays import Layout, images_in, images_out, labels_in
from ._models import Functions, Model, as_model
from ._progress import Progress, Told

Distance = str | float
Names = str | Sequence[str]


@dataclass(frozen=True)
class Records:
    """Numbers with their proof: the library's records, as dictionaries."""

    records: list[dict[str, Any]]
    """One per measurement: value, interval, counts, seeds, hashes, every parameter."""
    names: list[str]
    """What each is called in a list."""
    warnings: list[str] = field(default_factory=list)
    """What a reader of the numbers must know."""

    def to_pandas(self) -> Any:
        """A data frame with one row per record (needs pandas)."""
        import pandas

        rows = []
        for name, record in zip(self.names, self.records):
            low, high = record.get("ci95") or (None, None)
            keys = ("metric", "attack", "epsilon", "norm", "corruption", "severity", "value", "correct", "total")
            rows.append({"name": name, **{key: record.get(key) for key in keys}, "low": low, "high": high})
        return pandas.DataFrame(rows)

    def save(self, file: str | os.PathLike[str]) -> Path:
        """Writes the records as JSON, as `bandwise evaluate --json` does."""
        path = Path(file)
        path.write_text(json.dumps({"records": self.records}, indent=2) + "\n", encoding="utf-8")
        return path

    def _lines(self) -> list[tuple[str, str]]:
        return [(name, _in_words(record)) for name, record in zip(self.names, self.records)]

    def __str__(self) -> str:
        lines = [f"{name}: {words}" for name, words in self._lines()]
        return "\n".join(lines + [f"warning: {warning}" for warning in self.warnings])

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{html.escape(name)}</td><td>{html.escape(words)}</td></tr>" for name, words in self._lines()
        )
        notes = "".join(f"<p>⚠ {html.escape(warning)}</p>" for warning in self.warnings)
        return f"<table>{rows}</table>{notes}"


def _in_words(record: dict[str, Any]) -> str:
    if record.get("value") is None:
        return "—"
    share = record.get("correct") is not None or "accuracy" in str(record.get("metric"))
    words = f"{100 * record['value']:.2f} %" if share else f"{record['value']:.4g}"
    if record.get("correct") is not None:
        words += f" ({record['correct']} of {record['total']}"
        if record.get("ci95"):
            words += ", 95 % interval {:.2f} to {:.2f} %".format(*(100 * bound for bound in record["ci95"]))
        words += ")"
    return words


@dataclass(frozen=True)
class Evaluation(Records):
    """What :func:`evaluate` found. The short attributes are those of the last record: the accuracy under the attack, of
    several attacks under the worst of them for each image, without an attack the clean accuracy."""

    @property
    def accuracy(self) -> float:
        """Share of images that are right."""
        return float(self.records[-1]["value"])

    @property
    def clean_accuracy(self) -> float:
        """Share of images that are right without an attack."""
        return float(self.records[0]["value"])

    @property
    def ci95(self) -> tuple[float, float]:
        """Its 95 % Wilson interval."""
        low, high = self.records[-1]["ci95"]
        return float(low), float(high)

    @property
    def correct(self) -> int:
        """How many images are right."""
        return int(self.records[-1]["correct"])

    @property
    def total(self) -> int:
        """How many images were judged."""
        return int(self.records[-1]["total"])

    @property
    def per_image(self) -> NDArray[np.bool_]:
        """Which images are right, in their order."""
        return np.array([flag == "1" for flag in self.records[-1]["per_image"]], dtype=bool)


def _text(value: Distance) -> str:
    return value if isinstance(value, str) else repr(float(value))


def _settings(
    eps: Distance | None,
    norm: str | None,
    steps: int | None,
    step_size: Distance | None,
    start: str | None,
    restarts: int | None,
    queries: int | None,
    targets: int | None,
    band: str | None,
) -> str:
    given: dict[str, Any] = {
        "epsilon": None if eps is None else _text(eps),
        "norm": norm,
        "steps": steps,
        "step_size": None if step_size is None else _text(step_size),
        "start": start,
        "restarts": restarts,
        "queries": queries,
        "targets": targets,
        "band": band,
    }
    return json.dumps({key: value for key, value in given.items() if value is not None})


def _classes(core: _bandwise.Model, classes: Sequence[str] | None) -> list[str]:
    return list(classes) if classes is not None else [str(number) for number in range(core.num_classes)]


def _check_journal(model: Model, kept: object) -> None:
    if kept is not None and isinstance(model, Functions) and not model.identified:
        raise ValueError(
            "what is kept must know whose numbers they are: give wrap_callable a name= or weights= that tell this model "
            "from another one"
        )


def evaluate(
    model: Any,
    images: Any,
    labels: Any,
    *,
    attack: Names | None = None,
    eps: Distance | None = None,
    norm: str | None = None,
    steps: int | None = None,
    step_size: Distance | None = None,
    start: str | None = None,
    restarts: int | None = None,
    queries: int | None = None,
    targets: int | None = None,
    band: str | None = None,
    seed: int = 0,
    journal: str | os.PathLike[str] | None = None,
    shard: str | None = None,
    save_adversarial: str | os.PathLike[str] | None = None,
    batch_size: int = 250,
    progress: bool | Progress = True,
    layout: Layout = "NCHW",
    classes: Sequence[str] | None = None,
    name: str = "images",
) -> Evaluation:
    """Accuracy clean and under attacks, each number with its interval and its proof.

    `images` are uint8, or floats in [0, 1], NumPy or torch; `labels` whole numbers. `attack` is a name, several, or
    nothing; :func:`attacks` lists them, and settings that are not given are each attack's own. `eps` and `step_size`
    are in pixel units, "8/255" or a number. An image is dropped as soon as it is broken.

    With a `journal` every judgment is kept in that file: stopped at any moment (Ctrl-C too), the same call goes on. A
    `shard` such as "2/8" judges a part of the images; `bandwise merge` joins the journals.

    >>> import bandwise as bw
    >>> images, labels = bw.data("synthetic:test_count=20")
    >>> model = bw.wrap_callable(lambda x: x.mean(axis=(2, 3)), num_classes=3)
    >>> bw.evaluate(model, images, labels % 3, attack="square", queries=5, progress=False).total
    20
    """
    model = as_model(model)
    _check_journal(model, journal)
    pixels = images_in(images, layout)
    marks = labels_in(labels, len(pixels))
    names = [] if attack is None else [attack] if isinstance(attack, str) else list(attack)
    given = _settings(eps, norm, steps, step_size, start, restarts, queries, targets, band)
    with model._ready(pixels) as core, Told(progress) as told:
        found = _bandwise.evaluate(
            core,
            _bandwise.Images(pixels, marks, _classes(core, classes), name),
            names,
            given,
            seed,
            None if journal is None else os.fspath(journal),
            shard,
            None if save_adversarial is None else os.fspath(save_adversarial),
            batch_size,
            told,
        )
    parsed = json.loads(found)
    return Evaluation(parsed["records"], parsed["names"], _warnings(parsed["records"], parsed["warnings"]))


def _warnings(records: list[dict[str, Any]], more: Sequence[str] = ()) -> list[str]:
    """Each warning once, in the order of records."""
    return list(dict.fromkeys([*(text for record in records for text in record.get("warnings", [])), *more]))


def attack(
    model: Any,
    images: Any,
    labels: Any,
    attack: str = "pgd",
    *,
    eps: Distance | None = None,
    norm: str | None = None,
    steps: int | None = None,
    step_size: Distance | None = None,
    start: str | None = None,
    restarts: int | None = None,
    queries: int | None = None,
    targets: int | None = None,
    band: str | None = None,
    seed: int = 0,
    early_stop: bool = True,
    batch_size: int = 250,
    progress: bool | Progress = False,
    layout: Layout = "NCHW",
) -> Any:
    """Adversarial images, float32 in [0, 1], as the type that came in.

    With `early_stop` an image keeps the first perturbation that breaks it; without, all steps are taken and the last
    one is kept, as adversarial training does.

    >>> import bandwise as bw
    >>> images, labels = bw.data("synthetic:test_count=4")
    >>> model = bw.wrap_callable(lambda x: x.mean(axis=(2, 3)), num_classes=3)
    >>> adversarial = bw.attack(model, images, labels % 3, "square", eps="8/255", queries=5)
    >>> adversarial.shape, float(abs(adversarial - images).max()) <= 8 / 255 + 1e-6
    ((4, 3, 32, 32), True)
    """
    model = as_model(model)
    pixels = images_in(images, layout)
    marks = labels_in(labels, len(pixels))
    given = _settings(eps, norm, steps, step_size, start, restarts, queries, targets, band)
    with model._ready(pixels) as core, Told(progress) as told:
        set_ = _bandwise.Images(pixels, marks, _classes(core, None), "images")
        found, _ = _bandwise.attack(core, set_, attack, given, seed, early_stop, batch_size, told)
    return images_out(found, images, layout)


def attacks() -> list[dict[str, Any]]:
    """The attacks: name, norms, what a paper must state, and every parameter with its default.

    >>> import bandwise as bw
    >>> "autoattack" in [attack["name"] for attack in bw.attacks()]
    True
    """
    rows: list[dict[str, Any]] = json.loads(_bandwise.attacks())
    return rows


@dataclass(frozen=True)
class CorruptionEvaluation(Records):
    """What :func:`evaluate_corruptions` found."""

    @property
    def mean_accuracy(self) -> float:
        """Mean accuracy over the corruptions that were measured."""
        values = [r["value"] for r in self.records if r["metric"] == "accuracy" and r.get("corruption")]
        return float(np.mean(values))

    def accuracies(self) -> dict[tuple[str, int], float]:
        """Accuracy under each corruption at each severity."""
        measured = (r for r in self.records if r["metric"] == "accuracy" and r.get("corruption"))
        return {(record["corruption"], record["severity"]): record["value"] for record in measured}


def evaluate_corruptions(
    model: Any,
    images: Any,
    labels: Any,
    *,
    corruptions: Names = "all",
    severities: Sequence[int] = (1, 2, 3, 4, 5),
    protocol: str | None = None,
    seed: int = 0,
    frost: str | os.PathLike[str] | None = None,
    baseline: str | os.PathLike[str] | None = None,
    folder: str | os.PathLike[str] | None = None,
    batch_size: int = 250,
    progress: bool | Progress = True,
    layout: Layout = "NCHW",
    classes: Sequence[str] | None = None,
    name: str = "images",
) -> CorruptionEvaluation:
    """Accuracy under every corruption at every severity, and what they add up to.

    With a `folder`, each number is kept as soon as it is there, and the same call goes on after a stop. `baseline` are
    records of another model, for the mCE against it.

    >>> import bandwise as bw
    >>> images, labels = bw.data("synthetic:test_count=8")
    >>> model = bw.wrap_callable(lambda x: x.mean(axis=(2, 3)), num_classes=3)
    >>> found = bw.evaluate_corruptions(model, images, labels % 3, corruptions=["fog"], severities=[3], progress=False)
    >>> sorted(found.accuracies())
    [('fog', 3)]
    """
    model = as_model(model)
    _check_journal(model, folder)
    pixels = images_in(images, layout)
    marks = labels_in(labels, len(pixels))
    config = {
        "corruption": {
            "corruptions": [corruptions] if isinstance(corruptions, str) else list(corruptions),
            "severities": [int(level) for level in severities],
            "protocol": protocol,
            "seed": seed,
            "frost": None if frost is None else os.fspath(frost),
        },
        "baseline": None if baseline is None else os.fspath(baseline),
    }
    with model._ready(pixels) as core, Told(progress) as told:
        found = _bandwise.evaluate_corruptions(
            core,
            _bandwise.Images(pixels, marks, _classes(core, classes), name),
            json.dumps(config),
            None if folder is None else os.fspath(folder),
            batch_size,
            told,
        )
    records = json.loads(found)
    return CorruptionEvaluation(records, [_name(record) for record in records], _warnings(records))


def _name(record: dict[str, Any]) -> str:
    if record.get("corruption"):
        severity = record.get("severity")
        return f"{record['corruption']}{f' {severity}' if severity else ''}"
    return "clean" if record["metric"] == "accuracy" else str(record["metric"]).replace("_", " ")
