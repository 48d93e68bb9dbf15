"""How often `workbench gate` alarms without a cause, and how often it finds a planted slowdown.

Runs the stdlib engine in fresh processes, in turns: pairs of equal sides, then pairs whose second
side computes a known share more (SHA-256 rounds). Gates are drawn from these pairs; each is judged
by the product's own rules, with the noise of the equal pairs that it does not use, and confirmed by
a second draw.

    python -m benchmarks.gate [--pairs 40] [--percent 5]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from results.comparison import gate
from results.comparison.gate import Verdict
from results.comparison.groups import RunGroup
from workbench.gate.measure import GatePairs, GateSide, measure_pairs

ROUNDS = 100
STEPS = 20
DRAWS = 1000
NAMES = ("step",)


def make_side(rounds: int) -> GateSide:
    """The probe engine with so many rounds a step."""
    settings = (f"rounds={rounds}", f"steps={STEPS}")
    words = ["-e", "probe", "-d", "none", "-m", "sha256"]
    words += [word for text in settings for word in ("--set", text)]
    return GateSide(f"{rounds} rounds", tuple(words), sys.executable)


def log_ratios(pairs: GatePairs) -> np.ndarray:
    """Of the median step of each pair."""
    medians = [[record.timing.step_median.value for record in group.records] for group in pairs]
    return np.log(np.asarray(medians[1]) / np.asarray(medians[0]))


def draw_verdicts(
    pairs: GatePairs, noise: np.ndarray, count: int, threshold: float, seed: int = 0
) -> dict[str, float]:
    """Share of each verdict among gates of `count` pairs, and of alarms before noise and repeat."""
    generator = np.random.default_rng(seed)
    verdicts = dict.fromkeys([*Verdict, "alarm at first"], 0.0)
    for _ in range(DRAWS):
        order = generator.permutation(len(pairs.baseline.records))
        first, second = (judge(pairs, order[at : at + count], threshold) for at in (0, count))
        verdicts["alarm at first"] += first.verdict is Verdict.WORSE
        equal = generator.choice(noise, size=count, replace=False).tolist()
        held = gate.apply_noise_floor(first, gate.noise_bound(equal, count))
        (final,) = gate.confirm([held], [second])
        verdicts[final.verdict] += 1
    return {name: number / DRAWS for name, number in verdicts.items()}


def judge(pairs: GatePairs, indexes: Sequence[int], threshold: float) -> gate.GateCheck:
    """The check of the step over these pairs."""
    sides = [RunGroup(group.title, tuple(group.records[at] for at in indexes)) for group in pairs]
    (check,) = gate.check_sides(sides[0], sides[1], NAMES, threshold, paired=True)
    return check


def main() -> int:
    """Measure, then print the rates."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--percent", type=float, default=5.0)
    options = parser.parse_args()
    slower = round(ROUNDS * (1 + options.percent / 100))
    measured: dict[str, GatePairs] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, rounds in (("equal sides", ROUNDS), (f"{options.percent:g} % more", slower)):
            sides = make_side(ROUNDS), make_side(rounds)
            measured[name] = measure_pairs(
                *sides, options.pairs, Path(folder) / name, lambda _: None
            )
    noise = log_ratios(measured["equal sides"])
    for name, pairs in measured.items():
        ratios = log_ratios(pairs)
        step = np.median([record.timing.step_median.value for record in pairs.baseline.records])
        spread = ratios.std(ddof=1)
        print(f"{name}: {len(ratios)} pairs, step {step * 1e3:.1f} ms, mean "
              f"{np.expm1(ratios.mean()):+.2%}, spread of a pair {spread:.2%}")  # fmt: skip
        for count in (5, 10):
            for threshold in (0.0, 0.02):
                rates = draw_verdicts(pairs, noise, count, threshold)
                cells = ", ".join(f"{key} {rate:.1%}" for key, rate in rates.items())
                print(f"  {count} pairs, --worse-than {threshold:.0%}: {cells}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
