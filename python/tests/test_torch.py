"""Modules of torch under our attacks."""

from __future__ import annotations

import numpy as np
import pytest

import bandwise as bw
from conftest import golden, read_safetensors

try:
    import torch
    from torch import nn
    from torch.nn import functional
except ImportError:
    torch = None

pytestmark = pytest.mark.torch

if torch is not None:

    class Small(nn.Module):
        """With batch norm and dropout: what training mode would change."""

        def __init__(self, classes=5, seed=0):
            super().__init__()
            torch.manual_seed(seed)
            self.first = nn.Conv2d(3, 8, 3, padding=1)
            self.norm = nn.BatchNorm2d(8)
            self.drop = nn.Dropout(0.5)
            self.last = nn.Linear(8 * 16, classes, bias=False)

        def forward(self, x):
            x = functional.relu(self.norm(self.first(4 * x - 2)))
            return 9 * self.last(self.drop(functional.adaptive_avg_pool2d(x, 4).flatten(1)))

    class Block(nn.Module):
        def __init__(self, inputs, planes, stride):
            super().__init__()
            self.conv1 = nn.Conv2d(inputs, planes, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(planes)
            self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(planes)
            self.pad, self.stride = (planes - inputs) // 2, stride

        def forward(self, x):
            out = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
            if self.stride > 1:
                x = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.pad, self.pad))
            return functional.relu(out + x)

    class ResNet20(nn.Module):
        """With the names of pytorch_resnet_cifar10, and the normalization inside."""

        def __init__(self):
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
            inputs = 16
            for number, planes in enumerate((16, 32, 64), 1):
                blocks = []
                for index in range(3):
                    blocks.append(Block(inputs, planes, 2 if number > 1 and index == 0 else 1))
                    inputs = planes
                setattr(self, f"layer{number}", nn.Sequential(*blocks))
            self.linear = nn.Linear(64, 10)
            self.mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
            self.std = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)

        def forward(self, x):
            x = functional.relu(self.bn1(self.conv1((x - self.mean) / self.std)))
            return self.linear(self.layer3(self.layer2(self.layer1(x))).mean((2, 3)))


def batch(count=24, side=12):
    images = torch.from_numpy(np.random.default_rng(1).uniform(size=(count, 3, side, side)).astype(np.float32))
    with torch.no_grad():
        labels = Small().eval()(images).argmax(1)
    return images, labels


def test_a_module_is_left_as_it_was():
    module, (images, labels) = Small(), batch()
    module.train()
    module.norm.eval()
    module.first.weight.grad = torch.full_like(module.first.weight, 7)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    found = bw.evaluate(bw.wrap(module), images, labels, attack="pgd", eps="8/255", progress=False)
    assert found.clean_accuracy == 1 and found.accuracy < 1 and not found.warnings
    assert [part.training for part in module.modules()] == [True, True, False, True, True]
    assert (module.first.weight.grad == 7).all() and module.last.weight.grad is None
    assert all((value == before[name]).all() for name, value in module.state_dict().items())


def test_it_is_as_pytorchs_own_loop():
    module, (images, labels) = Small().eval(), batch()
    eps, step = 8 / 255, 2 / 255
    moved = images.clone()
    for _ in range(10):
        moved.requires_grad_(True)
        (slope,) = torch.autograd.grad(functional.cross_entropy(module(moved), labels, reduction="sum"), moved)
        moved = (images + (moved.detach() + step * slope.sign() - images).clamp(-eps, eps)).clamp(0, 1)
    options = {"eps": "8/255", "steps": 10, "step_size": "2/255", "start": "zero"}
    ours = bw.attack(module, images, labels, "pgd", early_stop=False, **options)
    assert isinstance(ours, torch.Tensor)
    assert ((ours - moved).abs() < 1e-6).float().mean() > 0.999
    found = bw.evaluate(module, images, labels, attack="pgd", progress=False, **options)
    with torch.no_grad():
        own = module(moved).argmax(1) == labels
    # Ours may break an image on the way that the last step brings back.
    assert not (torch.from_numpy(found.per_image) & ~own).any()


def test_a_journal_knows_the_module(tmp_path):
    images, labels = batch()
    options = {"attack": "fgsm", "journal": tmp_path / "j.jsonl", "progress": False}
    first = bw.evaluate(Small(), images, labels, **options)
    assert bw.evaluate(Small().train(), images, labels, **options).correct == first.correct
    with pytest.raises(ValueError, match="weights_sha256"):
        bw.evaluate(Small(seed=1), images, labels, **options)


def test_exceptions_of_modules_come_out():
    class Odd(nn.Module):
        def forward(self, x):
            raise IndexError("lost")

    class Pair(nn.Module):
        def forward(self, x):
            return x, x

    images, labels = batch()
    with pytest.raises(IndexError, match="lost"):
        bw.evaluate(bw.wrap(Odd(), num_classes=5), images, labels, progress=False)
    with pytest.raises(ValueError, match="not a tensor of logits"):
        bw.evaluate(bw.wrap(Pair(), num_classes=5), images, labels, progress=False)
    with pytest.raises(TypeError, match="torch.nn.Module"):
        bw.wrap(lambda x: x)


def test_no_grad_inside_is_seen_as_masked_gradients():
    class Blind(Small):
        def forward(self, x):
            with torch.no_grad():
                return super().forward(x)

    images, labels = batch()
    found = bw.evaluate(Blind(), images, labels, attack="pgd", progress=False)
    assert any("gradient" in warning for warning in found.warnings)


def test_contexts_of_the_caller_do_not_matter():
    images, labels = batch()
    options = {"attack": "pgd", "eps": "8/255", "progress": False}
    module = Small()
    plain = bw.evaluate(module, images, labels, **options)
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            assert (bw.evaluate(module, images, labels, **options).per_image == plain.per_image).all()


def test_double_precision_is_kept_inside():
    images, labels = batch()
    found = bw.evaluate(Small().double(), images, labels, attack="fgsm", eps="1/255", progress=False)
    assert found.records[0]["precision"] == "f64" and found.clean_accuracy == 1


def test_the_reference_network_has_the_same_verdict_on_every_image():
    """FGSM and PGD-10 on the first 30 reference images: as an nn.Module, and as the library's own network."""
    folder = golden()
    path = folder / "resnet20_akamaster.safetensors"
    module = ResNet20().eval()
    state = {name: torch.from_numpy(value) for name, value in read_safetensors(path).items()}
    assert not module.load_state_dict(state, strict=False).unexpected_keys
    native = bw.load(path, mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
    images, labels = bw.data(f"cifar10-bin:{folder / 'cifar10_500.bin'}", limit=30)
    np.testing.assert_allclose(bw.wrap(module).logits(images), native.logits(images), atol=2e-4)
    options = {"attack": ["fgsm", "pgd"], "eps": "1/255", "progress": False}
    one, two = (bw.evaluate(model, images, labels, **options) for model in (module, native))
    for ours, theirs in zip(one.records, two.records):
        assert ours["per_image"] == theirs["per_image"], ours["attack"]
    assert 0 < one.correct < one.clean_accuracy * 30


def test_corruptions_take_tensors():
    images, _ = batch(4)
    foggy = bw.corrupt((images * 255).to(torch.uint8), "fog")
    assert isinstance(foggy, torch.Tensor) and foggy.dtype == torch.uint8 and foggy.shape == images.shape
