"""Summaries of runs as text: numbers for the screen and headless output, lines, rows of a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from engines.protocol import RunSpec
from results.tables import run_outputs
from results.text import formats
from results.text.metric_names import headline_metric
from results.text.sanitize import clean_line
from workbench.planning import fold_runs
from workbench.suites import quantities as q
from workbench.suites.state import CLEAN_CAUSES, RunState, RunView, SuiteState

NUMBER_TITLES: Final = {
    "step": "step", "loss": "loss", "r1": "r@1", "step_time": "step time", "time_left": "ETA",
    "rss": "RSS", "vram": "VRAM",
}  # fmt: skip
"""Field of `RunNumbers` -> heading of its column in the headless table."""


class RunNumbers(NamedTuple):
    """Current numbers of a run as texts with units; empty: not measured, or not yet."""

    step: str
    """Last finished training step."""
    loss: str
    r1: str
    """r@1 in the batch."""
    step_time: str
    """Mean time of a step after the warm-up."""
    samples_per_second: str
    time_left: str
    """Until the last training step, at the current rate."""
    rss: str
    """Of the engine's process tree."""
    vram: str
    """Used on the run's GPUs, by all processes."""


def format_numbers(run: RunState) -> RunNumbers:
    """The current numbers of a run."""
    last, sample = run.last_full or run.last, run.sample  # as the curves have them
    vram = [g.used for g in sample.gpus if g.used is not None] if sample else []
    rss = sample.rss_tree if sample else None
    rate = run.timed_samples / run.timed_seconds if run.timed_seconds else None
    return RunNumbers(
        step=q.count(run.step) if run.step else "",
        loss=q.number(last.loss) if last else "",
        r1=q.score(last.metrics["r@1"]) if last and "r@1" in last.metrics else "",
        step_time=q.duration(run.step_seconds) if run.step_seconds else "",
        samples_per_second=q.rate(rate) if rate else "",
        time_left=q.clock(run.eta_seconds) if run.eta_seconds is not None else "",
        rss=q.size(rss) if rss is not None else "",
        vram=q.size(sum(vram)) if vram else "",
    )


WAITING_ORDERS: Final = {
    "skip": "to be skipped", "cancel": "to be cancelled", "prune": "to be pruned",
}  # fmt: skip
"""Order about a run that has not started -> its state until its turn comes."""
WORKING_ORDERS: Final = {"skip": "skipping", "cancel": "stopping", "prune": "pruning"}
"""The same of a run at work, until its step is finished and its checkpoint written."""


def describe_order(suite: SuiteState, view: RunView) -> str:
    """What was ordered of a run and has no effect yet, in three words; empty: nothing."""
    run_id, status = view.spec.run_id, view.state.status
    if status == "ended":
        return "queued again" if run_id in suite.to_retry else ""
    words = WAITING_ORDERS if status == "queued" else WORKING_ORDERS
    return words.get(suite.orders.removed.get(run_id, ""), "")


def format_outcomes(suite: SuiteState) -> str:
    """`2 of 4 runs completed · 1 failed · 1 stopped`; runs that are tried again count as open."""
    causes = Counter(
        view.state.cause
        for view in suite.runs
        if view.state.status == "ended" and view.spec.run_id not in suite.to_retry
    )
    unit = suite.unit.removesuffix("s") if suite.total == 1 else suite.unit
    parts = [f"{causes['completed']} of {suite.total} {unit} completed"]
    failed = sum(count for cause, count in causes.items() if cause not in CLEAN_CAUSES)
    counts = {"failed": failed, **{c: causes[c] for c in ("stopped", "skipped", "pruned")}}
    return " · ".join([*parts, *(f"{count} {word}" for word, count in counts.items() if count)])


def progress_line(view: RunView, number: int, total: int) -> str:
    """`[2/4] emoji_train clip-nano · train 120/300 40 % · loss 2.31 · …`."""
    run, spec = view.state, view.spec
    parts = [f"[{number}/{total}] {_run_name(spec)} · {_format_state(run)}"]
    parts += [view.location] if view.location else []
    if run.status == "ended":
        error, end_detail = (
            (run.failed.error if run.failed else ""),
            (run.end.detail if run.end else ""),
        )
        detail = end_detail if run.cause == "pruned" else error or end_detail
        if run.cause != "completed" and detail:
            parts.append(detail)
        if m := headline_metric(run.metrics):
            parts.append(f"{m.name} {m.value:.3f} on {m.split}")
        parts.append(f"{formats.clock(run.t)} in all")
        return " · ".join(parts)
    numbers = format_numbers(run)
    shown = ("loss", "r1", "step_time", "rss", "vram")
    texts = ((NUMBER_TITLES[name], getattr(numbers, name)) for name in shown)
    parts += [f"{title} {text}" for title, text in texts if text]
    if numbers.time_left:
        parts.append(f"{numbers.time_left} left")
    return " · ".join(parts)


def waiting_lines(state: SuiteState) -> list[str]:
    """`GPU 1 waits: 2 processes of others on it` for each lane that waits."""
    return [f"{lane.name} waits: {lane.waiting}" for lane in state.lanes if lane.waiting]


def output_lines(view: RunView, suite: Path) -> list[str]:
    """`submission saved to /…/submission.csv` for each output of a run; `suite`: its folder."""
    run = view.state
    outputs = run_outputs.collect_outputs(
        run.artifacts, (metric.scores_file for metric in run.metrics)
    )
    run_folder = suite / "runs" / view.folder
    return [f"    {output.kind} saved to {run_folder / output.path}" for output in outputs]


def suite_rows(state: SuiteState) -> tuple[tuple[tuple[str, bool], ...], list[list[str]]]:
    """Header of (name, right-aligned) and one row for each run."""
    header = (("run", False), ("state", False), *((t, True) for t in NUMBER_TITLES.values()))
    located = any(view.location for view in state.runs)
    header = (*header, ("location", False)) if located else header
    rows = []
    differences = distinguishing_labels([view.spec for view in state.runs], seeds=True)
    for view, difference in zip(state.runs, differences, strict=True):
        numbers = format_numbers(view.state)
        label = " ".join(part for part in (_run_name(view.spec), difference) if part)
        texts = [getattr(numbers, name) for name in NUMBER_TITLES]
        location = [view.location] if located else []
        status = describe_order(state, view) or _format_state(view.state)
        rows.append([label, status, *texts, *location])
    return header, rows


def distinguishing_labels(specs: Sequence[RunSpec], *, seeds: bool) -> list[str]:
    """Label, seed and repeat of each run, as far as they differ among runs of its subset and model.

    `seeds`: False for a table with a column of seeds.
    """
    alike: dict[tuple[str, str], list[RunSpec]] = {}
    for spec in specs:
        alike.setdefault((spec.subset, spec.model), []).append(spec)
    labels = []
    for spec in specs:
        if spec.trial:  # its settings are shown
            labels.append("")
            continue
        group = alike[spec.subset, spec.model]
        parts = [clean_line(spec.label, 40)] if len({s.label for s in group}) > 1 else []
        parts += [f"seed {spec.seed}"] if seeds and len({s.seed for s in group}) > 1 else []
        parts += [f"repeat {spec.repeat + 1}"] if len({s.repeat for s in group}) > 1 else []
        labels.append(" ".join(part for part in parts if part))
    return labels


def _run_name(spec: RunSpec) -> str:
    """`emoji_train clip-nano`, with the fold of a fold run and the settings of a trial."""
    trial = formats.settings(spec.trial.settings) if spec.trial else ""
    model = f"{spec.base_model} (trained)" if spec.base_model else spec.model
    return " ".join(
        part for part in (spec.subset, model, fold_runs.fold_label(spec), trial) if part
    )


def _format_state(run: RunState) -> str:
    if run.status == "ended":
        return run.cause
    if run.status != "running" or not run.phase:
        return run.status
    if run.plan and run.phase in ("train", "warmup"):
        share = f" {run.fraction:.0%}" if run.fraction is not None else ""
        return f"{run.phase} {run.step}/{run.last_step}{share}"
    if run.progress and run.progress.total:
        return f"{run.phase} {run.progress.done:,}/{run.progress.total:,} {run.progress.unit}"
    return run.phase
