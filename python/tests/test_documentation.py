"""Every snippet of docs/python.md runs, from top to bottom."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "python.md"

try:
    import torch
except ImportError:
    torch = None


def snippets():
    return re.findall(r"^```python( torch)?\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.S | re.M)


def run(tmp_path, monkeypatch, with_torch):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for needs_torch, code in snippets():
        if with_torch or not needs_torch:
            exec(compile(code, str(PAGE), "exec"), names)
    assert names["result"].total == 60 and names["adversarial"].shape == names["images"].shape
    assert "linear" in names["page"].read_text() and (tmp_path / "pgd.jsonl").exists()
    return names


def test_every_snippet_runs(tmp_path, monkeypatch, capsys):
    assert len(snippets()) >= 8
    run(tmp_path, monkeypatch, with_torch=False)
    assert "PGD-5" in capsys.readouterr().out


@pytest.mark.torch
def test_every_snippet_runs_with_torch(tmp_path, monkeypatch):
    assert run(tmp_path, monkeypatch, with_torch=True)["loss"].isfinite()
