"""One JaFR training step: Bandwise (reverse over forward) against PyTorch (double backward).

Both take turns on the same PreActResNet-18 and batch size, each in its own process, so that load on the
machine hits both alike. CPU time is the sum over all threads.

    cargo build --release -p bandwise --example benchmark
    python benches/compare_jafr.py --batch 32 --rounds 5
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time


def serve_torch(batch, threads):
    """The PyTorch side; the same protocol as crates/bandwise/examples/benchmark.rs."""
    import torch
    import torch.nn as nn
    import torch.nn.functional as F

    torch.set_num_threads(threads)

    class Block(nn.Module):
        def __init__(self, inputs, outputs, stride):
            super().__init__()
            self.bn1, self.bn2 = nn.BatchNorm2d(inputs), nn.BatchNorm2d(outputs)
            self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
            self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
            joined = stride == 1 and inputs == outputs
            self.shortcut = nn.Identity() if joined else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

        def forward(self, x):
            y = self.conv1(F.relu(self.bn1(x)))
            return self.conv2(F.relu(self.bn2(y))) + self.shortcut(x)

    class PreActResNet18(nn.Module):
        def __init__(self):
            super().__init__()
            layers, inputs = [nn.Conv2d(3, 64, 3, 1, 1, bias=False)], 64
            for stage in range(4):
                for block in range(2):
                    outputs, stride = 64 << stage, 2 if stage and not block else 1
                    layers.append(Block(inputs, outputs, stride))
                    inputs = outputs
            self.layers, self.linear = nn.Sequential(*layers), nn.Linear(512, 10)

        def forward(self, x):
            return self.linear(self.layers(x).mean((2, 3)))

    model = PreActResNet18().train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4)
    images, labels = torch.rand(batch, 3, 32, 32), torch.arange(batch) % 10
    exponents = torch.linspace(1, -1, 17) + 1e-5

    def step(regularized):
        optimizer.zero_grad()
        x = images.clone().requires_grad_(regularized)
        loss = F.cross_entropy(model(x), labels)
        if regularized:
            (gradient,) = torch.autograd.grad(loss, x, create_graph=True)
            amplitude = torch.fft.rfft2(gradient).abs().mean((0, 1))[:17] + 1e-5
            rows = (amplitude ** exponents[None, :]).prod(1).sum()
            columns = (amplitude ** exponents[:, None]).prod(0).sum()
            loss = loss - 0.001 * torch.log(rows + columns)
        loss.backward()
        optimizer.step()

    for line in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        step(json.loads(line)["work"] == "jafr")
        answer = {"seconds": time.process_time() - cpu, "wall": time.perf_counter() - wall,
                  "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
        print(json.dumps(answer), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--precision", default="f32", help="bandwise's convolutions: f32, f32-fast or bf16")
    parser.add_argument("--bandwise", default="target/release/examples/benchmark")
    parser.add_argument("--serve-torch", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve_torch:
        return serve_torch(arguments.batch, arguments.threads)

    commands = {
        "bandwise": [arguments.bandwise],
        "pytorch": [sys.executable, __file__, "--serve-torch", "--batch", str(arguments.batch),
                    "--threads", str(arguments.threads)],
    }
    environment = dict(os.environ, RAYON_NUM_THREADS=str(arguments.threads))
    sides = {
        name: subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        for name, command in commands.items()
    }

    def ask(name, work):
        job = {"model": "preactresnet18", "work": work, "precision": arguments.precision, "batch": arguments.batch}
        sides[name].stdin.write(json.dumps(job) + "\n")
        sides[name].stdin.flush()
        return json.loads(sides[name].stdout.readline())

    print(f"PreActResNet-18, batch {arguments.batch}, {arguments.threads} threads, median of {arguments.rounds} rounds")
    for work, title in (("training", "plain training step"), ("jafr", "with JaFR")):
        answers = {name: [] for name in sides}
        for round_number in range(arguments.rounds + 1):
            for name in sides:
                answer = ask(name, work)
                if round_number:  # the first round warms up
                    answers[name].append(answer)
        for key, unit in (("wall", "s wall"), ("seconds", "s CPU"), ("peak_mib", "MiB peak")):
            ours, theirs = (statistics.median(a[key] for a in answers[name]) for name in ("bandwise", "pytorch"))
            print(f"{title:20} bandwise {ours:8.2f}   pytorch {theirs:8.2f}   {unit:8}   ratio {theirs / ours:.2f}")
    for side in sides.values():
        side.stdin.close()


if __name__ == "__main__":
    main()
