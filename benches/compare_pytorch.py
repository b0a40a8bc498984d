#!/usr/bin/env python3
"""Bandwise and PyTorch side by side on the same work, alternately, and a table of the ratios.

    python3 benches/compare_pytorch.py [--rounds 5] [--models resnet18,preactresnet18] [--batch 64] [--compile]

Installs PyTorch into a virtual environment of its own (--venv, default target/bench-venv) and builds the example
`benchmark`. Every cell is the median over rounds of (PyTorch's CPU time / Bandwise's CPU time), one thread each, both
measured in the same round; PyTorch is the best of its memory formats (and `torch.compile` with --compile) in each
round. CPU time rather than wall time, because other programs may be running. --threads N compares wall time instead.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORK = ["inference", "attack", "training", "pgd10"]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--venv", type=Path, default=ROOT / "target" / "bench-venv")
    parser.add_argument("--torch", default="torch", help="requirement to install, for example torch==2.9.1")
    parser.add_argument("--index-url", help="package index to install from (PyTorch's CPU wheels are smaller)")
    parser.add_argument("--benchmark", type=Path, help="a built `benchmark` example; default: build it here")
    parser.add_argument("--models", default="resnet18,preactresnet18,resnet9,wrn-28-10")
    parser.add_argument("--work", default=",".join(WORK))
    parser.add_argument("--precisions", default="f32,f32-fast,bf16")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--formats", default="nchw,channels_last", help="PyTorch's memory formats")
    parser.add_argument("--compile", action="store_true", help="also time torch.compile")
    parser.add_argument("--json", type=Path, help="write all times here")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


# --- PyTorch's side, run inside the virtual environment ---------------------------------------------------------


def worker(options):
    import resource
    import time

    import torch
    from torch import nn
    from torch.nn import functional as F

    torch.set_num_threads(options.threads)
    torch.manual_seed(0)

    def conv(i, o, k=3, s=1):
        return nn.Conv2d(i, o, k, s, k // 2, bias=False)

    class Basic(nn.Module):
        def __init__(self, i, o, s):
            super().__init__()
            self.conv1, self.bn1 = conv(i, o, 3, s), nn.BatchNorm2d(o)
            self.conv2, self.bn2 = conv(o, o), nn.BatchNorm2d(o)
            plain = s == 1 and i == o
            self.shortcut = nn.Identity() if plain else nn.Sequential(conv(i, o, 1, s), nn.BatchNorm2d(o))

        def forward(self, x):
            y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
            return F.relu(y + self.shortcut(x))

    class PreAct(nn.Module):
        def __init__(self, i, o, s):
            super().__init__()
            self.bn1, self.conv1 = nn.BatchNorm2d(i), conv(i, o, 3, s)
            self.bn2, self.conv2 = nn.BatchNorm2d(o), conv(o, o)
            self.shortcut = None if s == 1 and i == o else conv(i, o, 1, s)

        def forward(self, x, wide=False):
            pre = F.relu(self.bn1(x))
            kept = x if self.shortcut is None else self.shortcut(pre if wide else x)
            return self.conv2(F.relu(self.bn2(self.conv1(pre)))) + kept

    class WidePreAct(PreAct):
        def forward(self, x):
            return super().forward(x, wide=True)

    class Net(nn.Module):
        def __init__(self, stem, blocks, head):
            super().__init__()
            self.stem, self.blocks, self.head = stem, blocks, head

        def forward(self, x):
            return self.head(self.blocks(self.stem(x)))

    def stages(block, i, widths, strides, count):
        layers = []
        for o, s in zip(widths, strides):
            for k in range(count):
                layers.append(block(i, o, s if k == 0 else 1))
                i = o
        return nn.Sequential(*layers)

    def head(channels, norm=False):
        before = [nn.BatchNorm2d(channels), nn.ReLU()] if norm else []
        return nn.Sequential(*before, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))

    def cbr(i, o, pool=False):
        layers = [conv(i, o), nn.BatchNorm2d(o), nn.ReLU()]
        return nn.Sequential(*layers, *([nn.MaxPool2d(2)] if pool else []))

    class Residual(nn.Module):
        def __init__(self, c):
            super().__init__()
            self.inner = nn.Sequential(cbr(c, c), cbr(c, c))

        def forward(self, x):
            return x + self.inner(x)

    def build(name):
        widths, strides = [64, 128, 256, 512], [1, 2, 2, 2]
        if name == "resnet18":
            stem = nn.Sequential(conv(3, 64), nn.BatchNorm2d(64), nn.ReLU())
            return Net(stem, stages(Basic, 64, widths, strides, 2), head(512))
        if name == "preactresnet18":
            return Net(conv(3, 64), stages(PreAct, 64, widths, strides, 2), head(512))
        if name == "wrn-28-10":
            return Net(conv(3, 16), stages(WidePreAct, 16, [160, 320, 640], [1, 2, 2], 4), head(640, True))
        if name == "resnet9":
            blocks = nn.Sequential(
                cbr(64, 128, True), Residual(128), cbr(128, 256, True), cbr(256, 512, True), Residual(512)
            )
            return Net(cbr(3, 64), blocks, head(512))
        raise SystemExit(f"no PyTorch model for {name}")

    class Bench:
        def __init__(self, job):
            self.format = torch.channels_last if job["format"] != "nchw" else torch.contiguous_format
            self.net = build(job["model"]).to(memory_format=self.format)
            self.half = job["precision"] == "bf16"
            self.parameters = sum(p.numel() for p in self.net.parameters())
            self.optimizer = torch.optim.SGD(self.net.parameters(), 1e-3, momentum=0.9, weight_decay=5e-4)
            self.call = torch.compile(self.net) if job["format"] == "compile" else self.net
            self.x = torch.rand(job["batch"], 3, 32, 32).to(memory_format=self.format)
            self.y = torch.arange(job["batch"]) % 10

        def loss(self, x):
            with torch.autocast("cpu", torch.bfloat16, enabled=self.half):
                return F.cross_entropy(self.call(x), self.y)

        def attack(self, x):
            x = x.detach().clone().requires_grad_()
            return torch.autograd.grad(self.loss(x), x)[0]

        def mode(self, train):
            self.net.train(train).requires_grad_(train)

        def train(self, x):
            self.mode(True)
            self.optimizer.zero_grad()
            self.loss(x).backward()
            self.optimizer.step()

        def run(self, work):
            if work == "training":
                return self.train(self.x)
            self.mode(False)
            if work == "inference":
                with torch.no_grad():
                    self.loss(self.x)
            elif work == "attack":
                self.attack(self.x)
            else:
                x = self.x
                for _ in range(10):
                    moved = x + 2 / 255 * self.attack(x).sign()
                    x = (self.x + (moved - self.x).clamp(-8 / 255, 8 / 255)).clamp(0, 1)
                self.train(x)

    benches = {}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps({"torch": torch.__version__, "peak_mib": before}), flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        key = tuple(job[k] for k in ("model", "precision", "batch", "format"))
        if key not in benches:
            if not any(k[:3] == key[:3] for k in benches):
                benches.clear()
            benches[key] = Bench(job)
        start, wall = time.process_time(), time.perf_counter()
        benches[key].run(job["work"])
        seconds, wall = time.process_time() - start, time.perf_counter() - wall
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        print(json.dumps({"seconds": seconds, "wall": wall, "peak_mib": peak}), flush=True)


# --- the comparison -----------------------------------------------------------------------------------------------


class Partner:
    """A process that answers every line of work with its times."""

    def __init__(self, command, threads):
        names = ["RAYON_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"]
        environment = os.environ | {name: str(threads) for name in names}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def ask(self, **job):
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        return self.read()

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("a benchmark process ended early")
        return json.loads(line)


def prepare(options):
    python = options.venv / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", options.venv], check=True)
        index = ["--index-url", options.index_url] if options.index_url else []
        subprocess.run([python, "-m", "pip", "install", "-q", *index, options.torch, "numpy"], check=True)
    binary = options.benchmark
    if binary is None:
        command = ["cargo", "build", "--release", "-p", "bandwise", "--example", "benchmark"]
        subprocess.run(command, cwd=ROOT, check=True)
        target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
        binary = target / "release" / "examples" / "benchmark"
    return python, binary


def compare(options, ours, theirs, model, work, precision):
    """Median ratio, and the median times per image in ms."""
    batch = options.batch if not model.startswith("wrn") else max(1, options.batch // 8)
    formats = options.formats.split(",") + (["compile"] if options.compile else [])
    clock = "seconds" if options.threads == 1 else "wall"
    # PyTorch has no three-term bf16: f32-fast is compared with its f32
    other = "f32" if precision == "f32-fast" else precision
    rounds = []
    for index in range(options.rounds + 1):
        mine = ours.ask(model=model, work=work, precision=precision, batch=batch)
        torch = [theirs.ask(model=model, work=work, precision=other, batch=batch, format=f) for f in formats]
        if index > 0:  # the first round warms up
            rounds.append((mine[clock], min(t[clock] for t in torch)))
    peaks = (mine["peak_mib"], torch[-1]["peak_mib"])
    ratio = statistics.median(theirs / ours for ours, theirs in rounds)
    mine, torch = (statistics.median(r[i] for r in rounds) / batch * 1e3 for i in (0, 1))
    return {"model": model, "work": work, "precision": precision, "batch": batch, "bandwise_ms": mine,
            "pytorch_ms": torch, "ratio": ratio, "rounds": rounds, "peaks_mib": peaks}


def main():
    options = arguments()
    if options.worker:
        return worker(options)
    python, binary = prepare(options)
    ours = Partner([str(binary)], options.threads)
    worker_command = [str(python), str(Path(__file__).resolve()), "--worker", "--threads", str(options.threads)]
    theirs = Partner(worker_command, options.threads)
    greeting = theirs.read()
    print(f"PyTorch {greeting['torch']}, {options.threads} thread(s), ms per image, medians of {options.rounds}\n")
    print("| model | work | precision | batch | Bandwise | PyTorch | ratio |\n|---|---|---|---|---|---|---|")
    results = []
    for model in options.models.split(","):
        for precision in options.precisions.split(","):
            for work in options.work.split(","):
                r = compare(options, ours, theirs, model, work, precision)
                results.append(r)
                print(f"| {model} | {work} | {precision} | {r['batch']} | {r['bandwise_ms']:.2f} "
                      f"| {r['pytorch_ms']:.2f} | {r['ratio']:.2f} |", flush=True)
    print("\nlargest resident set of the whole run: Bandwise {} MiB, PyTorch {} MiB ({} MiB before its first job)".format(
        *results[-1]["peaks_mib"], greeting["peak_mib"]))
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
