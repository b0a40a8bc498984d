"""The methods for training loops against the reference values that the library is held to."""

from __future__ import annotations

import json

import numpy as np
import pytest

from conftest import golden, read_safetensors

try:
    import torch
    from torch import nn
    from torch.nn import functional

    from bandwise import torch as methods
except ImportError:
    torch = None

pytestmark = pytest.mark.torch

OPTIONS = {
    "default": {},
    "all_freq": {"penalty": "weighted"},
    "diff": {"low_dominance": True},
    "all_freq+diff": {"penalty": "weighted", "low_dominance": True},
    "diff_all": {"penalty": "monotone"},
}


def case(name, tensors=None):
    folder = golden()
    found = read_safetensors(folder / f"{tensors or name}.safetensors")
    return json.loads((folder / f"{name}.json").read_text()), {k: torch.from_numpy(v) for k, v in found.items()}


def relative(found, expected):
    found = found.detach()
    return ((found - expected).norm() / expected.norm().clamp_min(1e-30)).item()


def test_bases_are_the_reference():
    _, values = case("case1_dct")
    for side in (3, 5):
        basis = methods.dct_basis(side, dtype=torch.float64)
        assert (basis - values[f"basis_{side}_f64"]).abs().max() < 1e-14


def layer_of(entry, values):
    form = methods.DctConv2d if entry["kind"] == "WD" else methods.SignalDctConv2d
    layer = form(
        entry["cin"], entry["cout"], entry["k"], entry["stride"], entry["padding"], groups=entry["groups"]
    )
    coefficients = values[f"{entry['name']}.coef"]
    with torch.no_grad():
        own = next(layer.parameters())
        assert own.shape == coefficients.shape
        own.copy_(coefficients)
    return layer


def test_decomposed_convolutions_and_their_gradients_are_the_reference():
    known, values = case("case1_dct")
    for entry in known["layers"]:
        name, layer = entry["name"], layer_of(entry, values)
        x = values[f"{name}.x"].clone().requires_grad_(True)
        y = layer(x)
        assert relative(y, values[f"{name}.y"]) < 1e-5, name
        (y * values[f"{name}.up"]).sum().backward()
        assert relative(x.grad, values[f"{name}.grad_x"]) < 1e-4, name
        assert relative(next(layer.parameters()).grad, values[f"{name}.grad_coef"]) < 1e-4, name
        assert relative(layer.filter_weight().double(), values[f"{name}.w_f64"]) < 1e-5, name


def test_penalties_and_their_gradients_are_the_reference():
    known, values = case("case1_dct")
    entries = {entry["name"]: entry for entry in known["layers"]}
    seen = 0
    for row in known["reg"]:
        if row["layer"] not in entries:
            continue
        layer = layer_of(entries[row["layer"]], values)
        value = methods.filter_frequency_penalty(layer, depth=1, **OPTIONS[row["option"]])
        assert value.item() == pytest.approx(row["value"], rel=1e-5), row
        value.backward()
        expected = values[f"{row['layer']}.reg_{row['option']}.grad"]
        assert relative(next(layer.parameters()).grad, expected) < 1e-4, row
        seen += 1
    assert seen > 20


def test_the_depth_rule_is_the_reference():
    from bandwise.torch._filter_frequency import layers_counted

    known, _ = case("case1_dct")
    for row in known["depth_rule"]:
        assert layers_counted(row["n_layers"], row["reg_depth"]) == row["layers_regularised"], row


def test_plain_and_decomposed_convolutions_have_one_penalty():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 5, stride=2, groups=2), nn.Conv2d(4, 4, 1))
    x = torch.rand(2, 3, 12, 12)
    y, penalty = module(x), methods.filter_frequency_penalty(module, depth=1)
    for kind in ("weight", "signal"):
        assert methods.decompose(module, kind, keep=True) == 2
        assert relative(module(x), y) < 1e-5
        assert methods.filter_frequency_penalty(module, depth=1).item() == pytest.approx(penalty.item(), rel=1e-5)
        assert methods.recompose(module) == 2 and relative(module(x), y) < 1e-5
    with pytest.raises(ValueError, match="no convolution"):
        methods.filter_frequency_penalty(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="no convolution"):
        methods.decompose(nn.Conv2d(2, 2, 1))


def test_fpcm_and_its_gradients_are_the_reference():
    known, values = case("case2_fpcm", "case2_fpcm_blocks")
    for row in known["blocks"]:
        name, stem = row["name"], row["name"].split(".")[0]
        kind = "depthwise" if row["kind"] == "resnet" else "full"
        block = methods.FPCM(row["shape"][1], projection=kind)
        block.load_state_dict(
            {"projection.weight": values[f"{stem}.proj_w"], "projection.bias": values[f"{stem}.proj_b"]}
        )
        methods.set_progress(block, row["epoch"] / 120)
        assert block.cutoff(row["shape"][2] * row["shape"][3]) == pytest.approx(row["D0"])
        x = values[f"{stem}.x"].clone().requires_grad_(True)
        y = block(x)
        (y * values[f"{stem}.up"]).sum().backward()
        found = {"y": y, "gx": x.grad, "gw": block.projection.weight.grad, "gb": block.projection.bias.grad}
        for part, value in found.items():
            expected = values[f"{name}.{part}"]
            assert (value - expected).abs().max() <= 2e-6 * expected.abs().max() + 1e-7, (name, part)
        # Evaluation is the end of training.
        block.eval()
        assert block.cutoff(row["shape"][2] * row["shape"][3]) == row["shape"][2] * row["shape"][3] // 8


def test_the_bias_of_maps_is_the_reference():
    known, values = case("case3_jafr")
    for row in known["direct_maps"]:
        map_ = values[f"map_{row['map']}"].clone().requires_grad_(True)
        value = methods.frequency_bias(map_, reduction=row["reduce_type"], max_power=row["max_pow"])
        assert value.item() == pytest.approx(row["bias_f64"], rel=1e-8, abs=1e-8), row
        value.backward()
        expected = values[f"map_{row['map']}.grad_{row['reduce_type']}_p{row['max_pow']}"]
        assert relative(map_.grad, expected) < 1e-7, row


def network_c(values, dtype):
    """conv - tanh - conv - tanh - mean over 8x8 - linear."""
    weights = {name[2:]: value.to(dtype) for name, value in values.items() if name.startswith("C/")}
    leaves = {name: value.clone().requires_grad_(True) for name, value in weights.items()}

    class C(nn.Module):
        def forward(self, x):
            for number in (1, 2):
                weight, bias = leaves[f"conv{number}.weight"], leaves[f"conv{number}.bias"]
                x = torch.tanh(functional.conv2d(x, weight, bias, padding=1))
            x = functional.avg_pool2d(x, 8).flatten(1)
            return functional.linear(x, leaves["fc.weight"], leaves["fc.bias"])

    return C(), leaves


def test_jafr_and_its_second_order_are_the_reference():
    known, values = case("case3_jafr")
    labels = torch.tensor(known["labels"])
    rows = [row for row in known["C"]["cases"] if row["dtype"] == "f64"]
    # Without batch norm, both modes are the same.
    mode = rows[0]["mode"]
    module, leaves = network_c(values, torch.float64)
    x = values["x"].double()
    for row in rows[0]["bias_values"]:
        options = {
            "reduction": row["reduce_type"], "max_power": row["max_pow"],
            "ignore_mean": row["ignore_first_basis"], "temperature": row["temperature"],
        }
        value = methods.jafr(module, x, labels, **options)
        if np.isfinite(float(row["bias"])):
            assert value.item() == pytest.approx(float(row["bias"]), rel=1e-7, abs=1e-7), row
    loss = functional.cross_entropy(module(x), labels) - 0.01 * methods.jafr(module, x, labels)
    loss.backward()
    for name, leaf in leaves.items():
        expected = values[f"C.{mode}.f64.sum_l0.01_p1_0.grad.{name}"]
        assert relative(leaf.grad, expected) < 1e-7, name
