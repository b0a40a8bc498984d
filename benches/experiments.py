"""The experiments of docs/results.md: every arm of an experiment with every seed, as a table with intervals.

    cargo build --release
    python benches/experiments.py list
    python benches/experiments.py run jafr-cifar10 --data cifar10:DIR --out runs/experiments
    python benches/experiments.py table jafr-cifar10 --out runs/experiments

An arm is a recipe and overrides of it. Runs that are complete are left alone, interrupted ones go on. The table gives
the mean over seeds and the half-width of its 95 % t-interval; nothing but the standard library is needed.
"""

import argparse
import json
import math
import os
import pathlib
import statistics
import subprocess
from concurrent.futures import ThreadPoolExecutor

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Two-sided 95 % quantiles of Student's t for 1 to 9 degrees of freedom.
T95 = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262]
HIGH = "regularizers.filter_frequency={lambda=%s,kind='high',depth=1.0}"
PGD = "attack={name='pgd',epsilon='8/255',step_size='4/255',steps=4,start='random'}"


def jafr(weight):
    return [f"regularizers.jafr={{lambda={weight}}}"] if weight else []


EXPERIMENTS = {
    "frequency-synthetic": {
        "seeds": 5,
        "arms": {
            "plain": ("demo/plain.toml", []),
            "penalised, λ = 0.01": ("demo/frequency.toml", []),
        },
        "filters": True,
    },
    "frequency-cifar10": {
        "seeds": 3,
        "arms": {
            "plain": ("two-core/cifar10-standard.toml", []),
            "high, λ = 0.001": ("two-core/cifar10-standard.toml", [HIGH % 0.001]),
            "high, λ = 0.01": ("two-core/cifar10-standard.toml", [HIGH % 0.01]),
        },
        "filters": True,
        "corruptions": True,
    },
    "adversarial-cifar10": {
        "seeds": 3,
        "arms": {
            "standard": ("two-core/cifar10-adversarial.toml", ["objective={name='standard'}"]),
            "PGD-AT": ("two-core/cifar10-adversarial.toml", []),
            "PGD-AT + AWP": ("two-core/cifar10-adversarial.toml", ["awp={gamma=0.005}"]),
            "PGD-AT + FPCM": ("two-core/cifar10-adversarial.toml", ["model.fpcm={}"]),
            "TRADES": ("two-core/cifar10-adversarial.toml", ["objective={name='trades',%s}" % PGD]),
            "MART": ("two-core/cifar10-adversarial.toml", ["objective={name='mart',%s}" % PGD]),
        },
    },
    "jafr-cifar10": {
        "seeds": 3,
        "arms": {
            f"λ = {weight}": ("two-core/cifar10-standard.toml", ["evaluation.track_gradients=500", *jafr(weight)])
            for weight in (-0.01, -0.003, 0, 0.003, 0.01)
        },
        "corruptions": True,
    },
}
# Corruptions whose change is mostly high-frequency, and mostly low-frequency (docs/corruptions.md).
NOISE = ("gaussian_noise", "shot_noise", "impulse_noise")
BLUR = ("gaussian_blur", "defocus_blur", "motion_blur")


def runs(name, out):
    """(arm, seed, recipe, overrides, folder) of every run."""
    experiment = EXPERIMENTS[name]
    for index, (arm, (recipe, overrides)) in enumerate(experiment["arms"].items()):
        for seed in range(experiment["seeds"]):
            yield arm, seed, ROOT / "recipes" / recipe, overrides, out / name / f"arm{index}-seed{seed}"


def train(name, out, data, binary, jobs):
    def one(run):
        arm, seed, recipe, overrides, folder = run
        status = folder / "status.json"
        if status.exists() and "complete" in status.read_text():
            return
        print(f"{name}: {arm}, seed {seed}", flush=True)
        if (folder / "run.toml").exists():
            command = [binary, "train", "--resume", "--out", folder]
        else:
            command = [binary, "train", recipe, "--out", folder, "--set", f"seed={seed}"]
            for override in overrides:
                command += ["--set", override]
            if data and "demo" not in str(recipe):
                command += ["--data", data]
        # Small networks: several runs of one thread each finish sooner than one run of several threads.
        environment = {**os.environ, "RAYON_NUM_THREADS": "1"} if jobs > 1 else None
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(one, runs(name, out)))


def measure(name, out, data, binary, limit):
    """What training itself does not measure: the filters' energy and accuracy on corrupted images."""
    experiment = EXPERIMENTS[name]
    for _, _, _, _, folder in runs(name, out):
        weights = folder / "model.safetensors"
        if experiment.get("filters") and not (folder / "filters").exists():
            subprocess.run([binary, "analyze", "filters", "--weights", weights, "--out", folder / "filters"],
                           check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        target = folder / "corruptions.json"
        if experiment.get("corruptions") and not target.exists():
            names = ",".join(NOISE + BLUR)
            subprocess.run([binary, "evaluate", "--weights", weights, "--data", data, "--limit", str(limit),
                            "--corruption", names, "--severity", "3", "--json", target],
                           check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def numbers(folder):
    """Every number of one run by its column."""
    found = {}
    for line in (folder / "results.jsonl").read_text().splitlines():
        record = json.loads(line)
        if record["metric"] == "shape_share":
            found["judged by shape %"] = 100 * record["value"]
        elif record["metric"] == "accuracy" and record.get("provenance", record).get("split", "test") == "test":
            attack, epsilon = record["attack"], round(255 * record["epsilon"])
            found["clean %" if attack == "none" else f"{attack} {epsilon}/255 %"] = 100 * record["value"]
    last = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()][-1]["values"]
    if "test/low_frequency_bias" in last:
        found["low-frequency bias"] = last["test/low_frequency_bias"]
    if (folder / "filters" / "results.jsonl").exists():
        record = json.loads((folder / "filters" / "results.jsonl").read_text())
        found["high-frequency filter energy %"] = 100 * record["value"]
    if (folder / "corruptions.json").exists():
        records = json.loads((folder / "corruptions.json").read_text())["records"]
        for title, group in (("noise %", NOISE), ("blur %", BLUR)):
            values = [record["value"] for record in records
                      if record.get("metric") == "accuracy" and record.get("corruption") in group]
            if values:
                found[title] = 100 * statistics.mean(values)
    return found


def table(name, out):
    arms = {}
    for arm, _, _, _, folder in runs(name, out):
        if (folder / "results.jsonl").exists():
            arms.setdefault(arm, []).append(numbers(folder))
    if not arms:
        raise SystemExit(f"{out / name}: no finished runs; start with `run`")
    columns = list(dict.fromkeys(column for seeds in arms.values() for seed in seeds for column in seed))
    print("| | seeds | " + " | ".join(columns) + " |")
    print("|---|---|" + "---|" * len(columns))
    for arm, seeds in arms.items():
        cells = []
        for column in columns:
            values = [seed[column] for seed in seeds if column in seed]
            cells.append(interval(values))
        print(f"| {arm} | {len(seeds)} | " + " | ".join(cells) + " |")


def interval(values):
    if not values:
        return "–"
    if len(values) == 1:
        return f"{values[0]:.1f}"
    half = T95[len(values) - 2] * statistics.stdev(values) / math.sqrt(len(values))
    return f"{statistics.mean(values):.1f} ± {half:.1f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["list", "run", "table"])
    parser.add_argument("experiment", nargs="*", choices=[[], *EXPERIMENTS])
    parser.add_argument("--data", help="CIFAR-10, as in --data of bandwise")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "runs" / "experiments")
    parser.add_argument("--limit", type=int, default=2000, help="corrupted test images (default 2000)")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, each with one thread (default 1)")
    parser.add_argument("--bandwise", default=ROOT / "target" / "release" / "bandwise", help="the binary")
    arguments = parser.parse_args()
    if arguments.action == "list":
        for name, experiment in EXPERIMENTS.items():
            print(f"{name}: {', '.join(experiment['arms'])}; {experiment['seeds']} seeds")
        return
    for name in arguments.experiment or EXPERIMENTS:
        if arguments.action == "run":
            if arguments.data is None and "cifar10" in name:
                raise SystemExit(f"{name} needs --data cifar10:DIR")
            train(name, arguments.out, arguments.data, arguments.bandwise, arguments.jobs)
            measure(name, arguments.out, arguments.data, arguments.bandwise, arguments.limit)
        table(name, arguments.out)


if __name__ == "__main__":
    main()
