"""Functions as models: what they get, what they give, what goes wrong in them."""

from __future__ import annotations

import numpy as np
import pytest

import bandwise as bw
from conftest import golden


def test_logits_go_through_unchanged(network, images):
    for layout in ("NCHW", "NHWC"):
        given = images if layout == "NCHW" else images.transpose(0, 2, 3, 1)
        found = network.model().logits(given, layout=layout, batch_size=7)
        np.testing.assert_allclose(found, network.logits(images), rtol=1e-5, atol=1e-5)


def test_a_model_may_want_channels_last(network, images, labels):
    def logits(pixels):
        assert pixels.shape[1:] == (8, 8, 3)
        return network.logits(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))

    def vjp(pixels, cotangent):
        return network.vjp(pixels.transpose(0, 3, 1, 2), cotangent).transpose(0, 2, 3, 1)

    last = bw.wrap_callable(logits, vjp, layout="NHWC", name="last")
    options = {"attack": "pgd", "eps": "4/255", "steps": 3, "progress": False}
    one, two = (bw.evaluate(model, images, labels, **options) for model in (last, network.model()))
    assert (one.per_image == two.per_image).all() and 0 < one.correct < one.clean_accuracy * 40


def test_one_step_is_the_sign_of_the_gradient(network, images, labels):
    adversarial = bw.attack(network.model(), images, labels, "fgsm", eps="8/255", early_stop=False)
    logits = network.logits(images)
    softmax = np.exp(logits - logits.max(1, keepdims=True))
    softmax /= softmax.sum(1, keepdims=True)
    gradient = network.vjp(images, softmax - np.eye(4, dtype=np.float32)[labels])
    expected = np.clip(images + np.float32(8 / 255) * np.sign(gradient), 0, 1)
    np.testing.assert_allclose(adversarial, expected, atol=1e-6)


def test_exceptions_come_out_as_they_went_in(network, images, labels):
    class Odd(Exception):
        pass

    def logits(_):
        raise Odd("the model is tired")

    def vjp(_, __):
        raise Odd("no way back")

    with pytest.raises(Odd, match="tired"):
        bw.evaluate(bw.wrap_callable(logits, num_classes=4), images, labels, progress=False)
    with pytest.raises(Odd, match="no way back"):
        model = bw.wrap_callable(network.logits, vjp)
        bw.evaluate(model, images, labels, attack="fgsm", progress=False)
    # Nothing of it is left behind.
    assert bw.evaluate(network.model(), images, labels, progress=False).total == 40


def test_without_gradients_attacks_say_why_not(network, images, labels):
    model = bw.wrap_callable(network.logits, num_classes=4)
    for attack in ("pgd", "autoattack"):
        with pytest.raises(ValueError, match=f"{attack} follows the gradient.*square"):
            bw.evaluate(model, images, labels, attack=attack, progress=False)
        with pytest.raises(ValueError, match="vector-Jacobian"):
            bw.attack(model, images, labels, attack)
    with pytest.raises(ValueError, match="a gradient spectrum needs gradients"):
        bw.gradient_spectrum(model, images, labels, progress=False)
    with pytest.raises(ValueError, match="learning a mask needs gradients"):
        bw.fourier_mask(model, images, labels, progress=False)
    assert bw.evaluate(model, images, labels, attack="square", queries=20, progress=False).accuracy < 1
    assert len(bw.heatmap(model, images, labels, largest_frequency=1, progress=False)) == 1


def test_wrong_answers_are_refused(network, images, labels):
    for answer, sentence in [
        (lambda x: np.zeros((len(x), 4, 1), np.float32), r"must return logits \[1, classes\]"),
        (lambda x: np.full((len(x), 4), np.nan, np.float32), "not finite"),
    ]:
        with pytest.raises(ValueError, match=sentence):
            bw.evaluate(bw.wrap_callable(answer), images, labels, progress=False)
    with pytest.raises(ValueError, match="vjp must return a gradient of shape"):
        model = bw.wrap_callable(network.logits, lambda x, c: x[:, 0])
        bw.evaluate(model, images, labels, attack="fgsm", progress=False)


def test_images_and_labels_are_checked(network, images, labels):
    model = network.model()
    for given, marks, sentence in [
        (images * 255, labels, r"float pixels must lie in \[0, 1\]"),
        (images[0], labels, "four dimensions"),
        (images.transpose(0, 2, 3, 1), labels, "say layout='NHWC'"),
        (images.astype(np.int64), labels, "uint8, or floats"),
        (images, labels[:3], "40 images need 40 labels"),
        (images, labels.astype(float), "whole numbers"),
        (images, labels - 4, "labels count from 0"),
        (images, labels + 4, "there are only 4 classes"),
    ]:
        with pytest.raises(ValueError, match=sentence):
            bw.evaluate(model, given, marks, progress=False)
    with pytest.raises(TypeError, match="is no model"):
        bw.evaluate("resnet", images, labels)
    with pytest.raises(ValueError, match="unknown attack"):
        bw.evaluate(model, images, labels, attack="pdg", progress=False)
    with pytest.raises(ValueError, match="batch_size"):
        bw.evaluate(model, images, labels, batch_size=0, progress=False)


def test_bytes_and_floats_are_the_same_images(network, labels):
    pixels = np.random.default_rng(3).integers(0, 256, size=(40, 3, 8, 8), dtype=np.uint8)
    one = network.model().logits(pixels)
    two = network.model().logits(pixels.astype(np.float32) / np.float32(255))
    np.testing.assert_allclose(one, two, atol=1e-6)


def test_networks_of_the_library_are_read(tmp_path):
    missing = tmp_path / "none.pt"
    with pytest.raises(FileNotFoundError, match="none.pt"):
        bw.load(missing)
    (tmp_path / "bad.pt").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="bad.pt"):
        bw.load(tmp_path / "bad.pt")
    with pytest.raises(ValueError, match="mean and std belong together"):
        bw.load(missing, mean=[0.5, 0.5, 0.5])


def test_the_reference_network_gives_its_reference_logits():
    folder = golden()
    model = bw.load(
        folder / "resnet20_akamaster.safetensors", mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]
    )
    assert model.name == "resnet20" and model.num_classes == 10 and "given" in model.description
    images, labels = bw.data(f"cifar10-bin:{folder / 'cifar10_500.bin'}", limit=50)
    expected = np.load(folder / "case5_resnet20_logits_500.npy")[:50]
    np.testing.assert_allclose(model.logits(images), expected, atol=2e-4)
    found = bw.evaluate(model, images, labels, progress=False)
    assert (found.per_image == (expected.argmax(1) == labels)).all()
