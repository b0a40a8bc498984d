"""Analyses of a model of Python's, and what notebooks show."""

from __future__ import annotations

import numpy as np
import pytest

import bandwise as bw
from conftest import TwoLayers


def test_the_heat_map_counts_wrong_answers(network, images, labels):
    found = bw.heatmap(network.model(), images, labels, norm=2.0, clip=False, largest_frequency=2, progress=False)
    one = found[0]
    assert one.error.shape == (5, 5) and one.clean_error == pytest.approx(0.1)
    # A wave and its opposite are the same.
    np.testing.assert_allclose(one.error, one.error[::-1, ::-1])
    assert one.error.max() > one.clean_error
    figure = found.figures[0]
    assert figure._repr_svg_().startswith("<svg") and "," in figure.csv
    assert "<iframe" in found._repr_html_() and found.records[0]["model"] == "two layers"


def test_models_side_by_side_keep_their_names(images, labels):
    models = [TwoLayers(seed=seed).model() for seed in (0, 1)]
    found = bw.band_accuracy(models, images, labels, radius_step=4, sectors=2, progress=False)
    assert {row.label for row in found.results} == {"two layers 1", "two layers 2"}
    whole = [row for row in found.results if row.label == "two layers 1" and row.window == "low-pass"][-1]
    assert whole.accuracy == pytest.approx(0.9)
    with pytest.raises(ValueError, match="name all or none"):
        bw.band_accuracy(models, images, labels, names=["one"], progress=False)


def test_the_gradient_spectrum_is_that_of_the_gradient(network, images, labels):
    one = bw.gradient_spectrum(network.model(), images, labels, batch_size=9, progress=False)[0]
    logits = network.logits(images)
    softmax = np.exp(logits - logits.max(1, keepdims=True))
    softmax /= softmax.sum(1, keepdims=True)
    gradient = network.vjp(images, softmax - np.eye(4)[labels])
    np.testing.assert_allclose(one.amplitude, np.abs(np.fft.fft2(gradient)).mean((0, 1)), rtol=1e-3)
    norms = np.sqrt((gradient**2).sum((1, 2, 3)))
    assert one.mean_norm == pytest.approx(norms.mean(), rel=1e-4) and one.zero == 0


def test_the_perturbation_spectrum_is_that_of_the_attack(network, images, labels):
    options = {"eps": "4/255", "steps": 3, "seed": 2}
    one = bw.perturbation_spectrum(network.model(), images, labels, attack="pgd", progress=False, **options)[0]
    moved = bw.attack(network.model(), images, labels, "pgd", early_stop=False, **options)
    power = (np.abs(np.fft.fft2(moved - images)) ** 2).mean((0, 1))
    np.testing.assert_allclose(one.power, power, rtol=1e-3)
    assert one.radial_share.sum() == pytest.approx(1) and one.images == 40


def test_masks_are_learned_for_models_and_images(network, images, labels, tmp_path):
    learning = {"epochs": 2, "batch_size": 20}
    found = bw.fourier_mask(network.model(), images, labels, learning=learning, progress=False)
    mask = found[0]
    assert mask.values.shape == (8, 8) and 0 <= mask.values.min() <= mask.values.max() <= 1
    assert mask.details["epochs"] <= 2 and len(mask.details["accuracy"]["masked"]) == 40
    np.testing.assert_allclose(mask.centered[4, 4], mask.values[0, 0])
    each = bw.fourier_mask(
        network.model(), images[:3], labels[:3], per_image=True, learning={"max_steps": 5}, folder=tmp_path / "m",
        progress=False,
    )
    assert len(each) == 3 and each[2].details["image"] == 2 and (tmp_path / "m" / "masks.npy").exists()


def test_one_report_of_everything(network, images, labels, tmp_path):
    model = network.model()
    results = [
        bw.evaluate(model, images, labels, attack="fgsm", progress=False),
        bw.evaluate_corruptions(model, images, labels, corruptions="contrast", severities=[1], progress=False),
        bw.heatmap(model, images, labels, largest_frequency=1, progress=False),
    ]
    page = bw.report(*results, out=tmp_path / "report.html").read_text()
    for part in ("two layers", "contrast", "Fourier heat map", "FGSM"):
        assert part in page, part
    with pytest.raises(ValueError, match="at least one"):
        bw.report()
    folder = results[2].save(tmp_path / "analysis").parent
    assert (folder / "heatmap.csv").exists() and "Fourier" in results[2].title
