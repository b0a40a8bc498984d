#!/usr/bin/env python3
"""What FPCM or filter frequency regularization costs: the same network with and without it, alternately.

    cargo build --release -p bandwise --example benchmark
    python3 benches/method_cost.py [--with fpcm|filter-frequency|filter-penalty] [--model resnet18] [--batch 64] [--rounds 7]

Every figure is a median over rounds of CPU seconds (--threads 1) or wall seconds; the share is the median over rounds
of (with - without) / with, both measured in the same round.
"""

import argparse
import statistics
from pathlib import Path

from compare_pytorch import ROOT, Partner


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--benchmark", type=Path, default=ROOT / "target" / "release" / "examples" / "benchmark")
    parser.add_argument("--with", dest="method", default="fpcm", choices=["fpcm", "filter-frequency", "filter-penalty"])
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--work", default="training,attack", help="inference, attack, training, pgd10")
    parser.add_argument("--precision", default="f32")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()

    bandwise = Partner([str(options.benchmark)], options.threads)
    clock = "seconds" if options.threads == 1 else "wall"
    print(f"{options.model}, {options.precision}, batch {options.batch}, {options.threads} thread(s), "
          f"medians of {options.rounds} rounds\n")
    print(f"| work | without, s | with {options.method}, s | its share |\n|---|---|---|---|")
    for work in options.work.split(","):
        job = {"model": options.model, "work": work, "precision": options.precision, "batch": options.batch}
        rounds = []
        for index in range(options.rounds + 1):
            pair = [bandwise.ask(**job, **{"with": method})[clock] for method in ("", options.method)]
            if index > 0:  # the first round warms up
                rounds.append(pair)
        without, with_ = (statistics.median(r[i] for r in rounds) for i in (0, 1))
        share = statistics.median((b - a) / b for a, b in rounds)
        print(f"| {work} | {without:.3f} | {with_:.3f} | {100 * share:.1f} % |", flush=True)


if __name__ == "__main__":
    main()
