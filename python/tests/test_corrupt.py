"""Corruptions."""

from __future__ import annotations

import numpy as np
import pytest

import bandwise as bw


@pytest.fixture
def pictures():
    rows = np.linspace(0, 255, 32).astype(np.uint8)
    return np.broadcast_to(rows[None, None, :, None], (3, 3, 32, 32)).copy()


def test_every_corruption_changes_images_reproducibly(pictures):
    names = [row["name"] for row in bw.corruptions()]
    assert len(names) == 19 and "fog" in names
    for name in names:
        one = bw.corrupt(pictures, name, severity=5, seed=1)
        assert one.shape == pictures.shape and one.dtype == np.uint8 and (one != pictures).any(), name
        assert (one[1:] == bw.corrupt(pictures[1:], name, severity=5, seed=1, first_index=1)).all(), name


def test_type_and_layout_stay(pictures):
    one = bw.corrupt(pictures, "contrast", severity=2)
    last = bw.corrupt(pictures.transpose(0, 2, 3, 1), "contrast", severity=2, layout="NHWC")
    floats = bw.corrupt(pictures / np.float32(255), "contrast", severity=2)
    assert (last.transpose(0, 3, 1, 2) == one).all()
    assert floats.dtype == np.float32 and (np.round(floats * 255) == one).all()


def test_mistakes_are_told(pictures):
    for options, sentence in [
        ({"corruption": "fogg"}, "fog"),
        ({"corruption": "fog", "severity": 6}, "severity"),
        ({"corruption": "fog", "protocol": "imagenet"}, "cifar, 64 or 224"),
    ]:
        with pytest.raises(ValueError, match=sentence):
            bw.corrupt(pictures, **options)
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        bw.corrupt(pictures.astype(np.float32), "fog")


def test_an_evaluation_is_that_of_corrupted_images(network, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, size=(30, 3, 8, 8), dtype=np.uint8)
    labels = network.model().logits(images).argmax(1)
    options = {"corruptions": ["gaussian_noise", "contrast"], "severities": [1, 5], "progress": False}
    found = bw.evaluate_corruptions(network.model(), images, labels, folder=tmp_path / "out", **options)
    table = found.accuracies()
    assert set(table) == {(c, s) for c in options["corruptions"] for s in (1, 5)}
    assert found.names[0] == "clean" and found.records[0]["value"] == 1
    for (name, severity), accuracy in table.items():
        corrupted = bw.corrupt(images, name, severity=severity)
        right = network.model().logits(corrupted).argmax(1) == labels
        assert accuracy == pytest.approx(right.mean()), (name, severity)
    assert found.mean_accuracy == pytest.approx(np.mean(list(table.values())))
    again = bw.evaluate_corruptions(network.model(), images, labels, folder=tmp_path / "out", **options)
    assert again.accuracies() == table
