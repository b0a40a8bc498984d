"""Accuracies, journals, shards, Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import threading

import numpy as np
import pytest

import bandwise as bw
from conftest import TwoLayers


def test_numbers_come_with_their_proof(network, images, labels):
    found = bw.evaluate(
        network.model(), images, labels, attack=["fgsm", "pgd"], eps="4/255", seed=3, progress=False
    )
    assert [record["attack"] for record in found.records[:3]] == ["none", "fgsm", "pgd"]
    assert found.clean_accuracy == 0.9
    worst = found.records[-1]
    assert found.names[-1] == "worst case of all" and found.total == 40
    assert found.accuracy == worst["value"] == found.correct / 40 == found.per_image.mean()
    low, high = found.ci95
    assert 0 <= low < found.accuracy < high <= 1
    assert worst["weights_sha256"] and worst["data_sha256"] and worst["seeds"] == [3]
    assert worst["model"] == "two layers" and "callable" in worst["subject"]
    assert "worst case of all" in str(found) and "<table>" in found._repr_html_()
    clean = np.array([flag == "1" for flag in found.records[0]["per_image"]])
    assert (clean == (network.logits(images).argmax(1) == labels)).all()
    # An image is broken under the attack only within its bound.
    assert not (found.per_image & ~clean).any()


def test_results_do_not_depend_on_the_batch_size(network, images, labels):
    one, two = (
        bw.evaluate(network.model(), images, labels, attack="pgd", eps="3/255", batch_size=size, progress=False)
        for size in (40, 7)
    )
    assert one.records[1]["per_image"] == two.records[1]["per_image"]


def test_a_journal_goes_on_and_refuses_another_model(network, images, labels, tmp_path):
    journal = tmp_path / "journal.jsonl"
    options = {"attack": "pgd", "eps": "3/255", "journal": journal, "progress": False}
    first = bw.evaluate(network.model(), images, labels, **options)
    network.calls.clear()
    again = bw.evaluate(network.model(), images, labels, **options)
    assert again.records[1]["per_image"] == first.records[1]["per_image"]
    asked = network.calls.count("vjp")
    with pytest.raises(ValueError, match="weights_sha256"):
        bw.evaluate(TwoLayers(seed=1).model(), images, labels, **options)
    with pytest.raises(ValueError, match="data_sha256"):
        bw.evaluate(network.model(), images[::-1], labels, **options)
    with pytest.raises(ValueError, match="give wrap_callable a name= or weights="):
        bw.evaluate(bw.wrap_callable(network.logits, network.vjp), images, labels, **options)
    # Only the check before the work asked the model: nothing was left to attack.
    assert asked <= 4


def test_shards_are_parts(network, images, labels, tmp_path):
    options = {"attack": "fgsm", "eps": "2/255", "progress": False}
    whole = bw.evaluate(network.model(), images, labels, **options)
    parts = [bw.evaluate(network.model(), images, labels, shard=f"{i}/2", **options) for i in (1, 2)]
    assert sum(part.correct for part in parts) == whole.correct
    assert sum(part.total for part in parts) == whole.total


@pytest.mark.parametrize("where", ["logits", "vjp", "progress"])
def test_control_c_stops_and_the_journal_goes_on(network, images, labels, tmp_path, where):
    journal = tmp_path / "journal.jsonl"
    options = {"attack": "pgd", "eps": "1/255", "steps": 40, "batch_size": 4, "journal": journal}
    counts = {"logits": 0, "vjp": 0, "progress": 0}

    def press(place):
        counts[place] += 1
        if place == where and counts[place] == {"logits": 40, "vjp": 40, "progress": 2}[place]:
            os.kill(os.getpid(), signal.SIGINT)

    def logits(pixels):
        press("logits")
        return network.logits(pixels)

    def vjp(pixels, cotangent):
        press("vjp")
        return network.vjp(pixels, cotangent)

    model = bw.wrap_callable(logits, vjp, name="two layers", weights=network.weights, num_classes=4)
    with pytest.raises(KeyboardInterrupt):
        bw.evaluate(model, images, labels, progress=lambda *_: press("progress"), **options)
    assert journal.stat().st_size > 0
    went_on = bw.evaluate(network.model(), images, labels, progress=False, **options)
    options["journal"] = None
    whole = bw.evaluate(network.model(), images, labels, progress=False, **options)
    assert went_on.records[1]["per_image"] == whole.records[1]["per_image"]


def test_the_lock_of_the_interpreter_is_free_meanwhile(images, tmp_path):
    """A thread of Python's runs while a network of the library works."""
    ran = threading.Event()
    model = bw.wrap_callable(lambda x: x.mean(axis=(2, 3)), num_classes=3)

    def progress(*_):
        # Called from within the work: another thread must get its turn.
        thread = threading.Thread(target=ran.set)
        thread.start()
        assert ran.wait(10)

    bw.evaluate(model, images, np.zeros(len(images), int), progress=progress)
    assert ran.is_set()


def test_an_error_of_the_progress_function_comes_out(network, images, labels):
    def progress(*_):
        raise ZeroDivisionError("in the bar")

    with pytest.raises(ZeroDivisionError, match="in the bar"):
        bw.evaluate(network.model(), images, labels, attack="pgd", progress=progress)


def test_a_softmax_at_the_end_is_warned_of(network, images, labels):
    def softmax(pixels):
        logits = np.exp(network.logits(pixels))
        return logits / logits.sum(1, keepdims=True)

    model = bw.wrap_callable(softmax, num_classes=4)
    found = bw.evaluate(model, images, labels, attack="square", queries=5, progress=False)
    assert any("returns probabilities" in warning for warning in found.warnings)


def test_adversarial_images_keep_type_and_bound(network, images, labels):
    for layout in ("NCHW", "NHWC"):
        given = images if layout == "NCHW" else images.transpose(0, 2, 3, 1)
        found = bw.attack(network.model(), given, labels, "pgd", eps="2/255", layout=layout)
        assert found.shape == given.shape and found.dtype == np.float32
        assert np.abs(found - given).max() <= 2 / 255 + 1e-6 and np.abs(found - given).max() > 0
    evaluated = bw.evaluate(network.model(), images, labels, attack="pgd", eps="2/255", progress=False)
    found = bw.attack(network.model(), images, labels, "pgd", eps="2/255")
    assert ((network.logits(found).argmax(1) == labels) == evaluated.per_image).all()


def test_the_table_of_attacks_is_the_librarys():
    rows = {row["name"]: row for row in bw.attacks()}
    assert rows["pgd"]["parameters"]["steps"] == 10 and "linf" in rows["autoattack"]["norms"]


def test_records_are_files_of_the_command_line(network, images, labels, tmp_path):
    found = bw.evaluate(network.model(), images, labels, progress=False)
    assert json.loads(found.save(tmp_path / "r.json").read_text())["records"] == found.records
    page = bw.report(tmp_path / "r.json", out=tmp_path / "page.html")
    assert "two layers" in page.read_text()
