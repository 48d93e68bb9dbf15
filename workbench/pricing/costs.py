"""What a plan will cost: steps, time and memory of each run, from earlier runs of this machine.

Time: seconds of an earlier run that do not grow with the steps, plus its training seconds times the
ratio of the samples. Nothing is extrapolated from other models. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from results.text import formats
from workbench.pricing.earlier import EarlierRun

if TYPE_CHECKING:
    from engines.protocol import RunSpec

SIZES: Final = (
    "batch", "image_size", "max_length", "precision", "frames", "long_side", "quantize",
    "gradient_checkpointing", "nproc_per_node", "nnodes",
)  # fmt: skip
"""Settings that change the time or the memory of a step most."""
LENGTHS: Final = (
    "epochs", "max_steps", "sample", "folds", "fold", "validation_share", "stages",
    "early_stopping", "gradient_accumulation_steps",
)  # fmt: skip
"""Settings from which the number of steps follows, besides the rows and `SIZES`."""
MIN_INTERVAL_RUNS: Final = 3
"""Fewer runs give no interval."""
MOST_VALUES: Final = 5
"""Earlier values of a setting that are shown."""
QUANTILES: Final = {2: 4.303}
"""97.5 % point of Student's t below three degrees of freedom."""


@dataclass(frozen=True, slots=True)
class TimeEstimate:
    """Seconds of a run, with a prediction interval at 95 % where enough runs are known."""

    seconds: float
    half_width: float | None
    count: int
    """Earlier runs that it rests on."""
    other_subset: str = ""
    """It rests on runs on this subset, not on the run's own."""
    other_settings: tuple[str, ...] = ()
    """Settings, besides `LENGTHS`, in which the runs that it rests on differ."""
    is_forecast: bool = False
    """It rests on cost probes: evaluation and saving come on top."""


@dataclass(frozen=True, slots=True)
class RunCost:
    """Costs of one planned run; None: not known."""

    steps: int | None = None
    time: TimeEstimate | None = None
    memory: int | None = None
    """Bytes at the peak."""
    memory_source: str = ""
    disk: int | None = None
    done: str = ""
    """Suite of an earlier run that did the same and completed; empty: none did."""
    done_wall: float | None = None


@dataclass(frozen=True, slots=True)
class MachineState:
    """What this machine has for a plan. Bytes; None: not known."""

    memory: int | None = None
    memory_name: str = ""
    """`host` or the GPU's name."""
    disk: int | None = None
    busy: str = ""
    """Which suite holds the device; empty: it is free."""


NO_COST: Final = RunCost()
UNKNOWN_MACHINE: Final = MachineState()


def select_earlier(spec: RunSpec, runs: Sequence[EarlierRun]) -> list[EarlierRun]:
    """The earlier runs that are most alike.

    Of the same task and model on this subset with the same settings, else with these sizes, else
    with others, else on the subset that was trained last. Cost probes, for a training or another
    one, only where there is no whole run.
    """
    subset, params = spec.subset, spec.params
    task = "train" if spec.task == "probe" else spec.task
    work = (spec.engine, task, spec.base_model or spec.model)
    same_model = [run for run in runs if (run.engine, run.task, run.model) == work]
    same_model = [run for run in same_model if not run.is_forecast] or same_model
    same_subset = [run for run in same_model if run.subset == subset]
    alike = [
        run
        for run in same_subset
        if all(run.params.get(name, value) == value for name, value in params.items())
    ]
    alike = alike or [run for run in same_subset if not list_other_sizes(run, params)]
    if alike or same_subset or not same_model:
        return alike or same_subset
    return [run for run in same_model if run.subset == same_model[-1].subset]


def estimate_time(
    steps: int | None, params: dict[str, Any], subset: str, runs: Sequence[EarlierRun]
) -> TimeEstimate | None:
    """Seconds of a run with these steps; `runs`: of `select_earlier`. None: no run tells."""
    estimates = [s for run in runs if (s := _scale_seconds(run, steps, params, subset)) is not None]
    if not estimates:
        return None
    count, mean = len(estimates), sum(estimates) / len(estimates)
    half = None
    if count >= MIN_INTERVAL_RUNS:
        from results.records.cost_forecasts import student_t_quantile  # it imports pydantic

        deviation = math.sqrt(sum((s - mean) ** 2 for s in estimates) / (count - 1))
        quantile = QUANTILES.get(count - 1) or student_t_quantile(count - 1)
        half = quantile * deviation * math.sqrt(1 + 1 / count)
    other = runs[0].subset if runs[0].subset != subset else ""
    settings = tuple(dict.fromkeys(n for run in runs for n in _list_other_settings(run, params)))
    if half is None and count == 1 and runs[0].half_width is not None and runs[0].seconds:
        half = runs[0].half_width * mean / runs[0].seconds
    return TimeEstimate(mean, half, count, other, settings, runs[0].is_forecast)


def list_other_sizes(run: EarlierRun, params: Mapping[str, Any]) -> list[str]:
    """Settings of `SIZES` in which an earlier run differs from a planned one."""
    return [name for name in SIZES if name in params and run.params.get(name) != params[name]]


def _scale_seconds(
    run: EarlierRun, steps: int | None, params: dict[str, Any], subset: str
) -> float | None:
    if run.seconds is None:
        return None
    if steps is None:
        return run.seconds if not run.steps or _has_same_steps(run, params, subset) else None
    if not run.steps or run.training_seconds is None:
        return None
    samples = steps * _step_samples(params)
    earlier_samples = run.steps * _step_samples(run.params)
    rest = max(0.0, run.seconds - run.training_seconds)
    return rest + run.training_seconds * samples / earlier_samples


def _list_other_settings(run: EarlierRun, params: Mapping[str, Any]) -> list[str]:
    """Settings that both have, with different values, besides those that are scaled."""
    return [
        name
        for name, value in params.items()
        if name not in LENGTHS and name in run.params and run.params[name] != value
    ]


def _has_same_steps(run: EarlierRun, params: Mapping[str, Any], subset: str) -> bool:
    """Whether it has the steps of a planned run, whatever their number is."""
    names = (*LENGTHS, *SIZES)
    return run.subset == subset and all(run.params.get(n) == params.get(n) for n in names)


def _step_samples(params: Any) -> int:
    factors = ("batch", "gradient_accumulation_steps", "nproc_per_node", "nnodes")
    return math.prod(int(params.get(name) or 1) for name in factors)


def describe_values(engine: str, name: str, runs: Sequence[EarlierRun]) -> str:
    """`Earlier: 1 (3 runs, best recall@1 0.330), 8 (41 runs, …)`: values of a setting of the
    engine in completed runs, the most frequent first; empty: there is none."""
    by_value: dict[str, list[EarlierRun]] = {}
    for run in runs:
        value = run.params.get(name)
        if run.engine == engine and value not in (None, "", [], ()):
            by_value.setdefault(_value_text(value), []).append(run)
    frequent = sorted(by_value.items(), key=lambda item: -len(item[1]))[:MOST_VALUES]
    texts = []
    for value, group in frequent:
        count = "1 run" if len(group) == 1 else f"{len(group)} runs"
        metrics = {run.metric for run in group if run.score is not None}
        if len(metrics) == 1:
            best = max(run.score for run in group if run.score is not None)
            count += f", best {metrics.pop()} {best:.3f}"
        texts.append(f"{value} ({count})")
    return f"Earlier: {', '.join(texts)}." if texts else ""


def _value_text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def sum_times(costs: Sequence[RunCost]) -> tuple[TimeEstimate | None, int]:
    """(sum over the runs to do, number of runs without an estimate)."""
    open_costs = [cost for cost in costs if not cost.done]
    times = [cost.time for cost in open_costs if cost.time is not None]
    if not times:
        return None, len(open_costs)
    halves = [time.half_width for time in times]
    half = None
    if None not in halves:
        half = math.sqrt(sum((width or 0.0) ** 2 for width in halves))
    total = TimeEstimate(sum(t.seconds for t in times), half, max(t.count for t in times))
    return total, len(open_costs) - len(times)


def format_time(time: TimeEstimate | None) -> str:
    """`4:40`, `4:40 [4:10, 5:10]`; a dash if it is not known."""
    if time is None:
        return "–"
    text = formats.clock(time.seconds)
    if time.half_width is None:
        return text
    low = formats.clock(max(0.0, time.seconds - time.half_width))
    return f"{text} [{low}, {formats.clock(time.seconds + time.half_width)}]"
