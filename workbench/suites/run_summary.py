"""A run as one line of text, a suite as rows of a table: the front ends without a screen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, TypeVar

from engines import protocol
from engines.protocol import RunSpec
from results.records import schema
from results.tables import run_outputs
from results.text import formats
from results.text.sanitize import clean_line
from workbench.planning import folds
from workbench.suites.state import RunState, RunView, SuiteState

TRAIN: Final = "train"
"""Split of the captions of training media (`engines.captioning`)."""
_HEADER = (
    ("run", False), ("state", False), ("step", True), ("loss", True), ("r@1", True),
    ("ms/step", True), ("ETA", True), ("RSS", True), ("VRAM", True),
)  # fmt: skip


Measured = TypeVar("Measured", protocol.Metric, schema.Metric)


def headline(metrics: Sequence[Measured]) -> Measured | None:
    """The one metric that a line has room for: recall@1 or accuracy, else what was held out."""
    plain = [one for one in metrics if one.name.lower() in ("recall@1", "accuracy")]
    held_out = [one for one in metrics if one.split != TRAIN]
    return next(iter(plain or held_out or metrics), None)


def progress_line(view: RunView, number: int, total: int) -> str:
    """`[2/4] emoji_train clip-nano · train 120/300 40 % · loss 2.31 · …`."""
    run, spec = view.state, view.spec
    parts = [f"[{number}/{total}] {_what(spec)} · {_state(run)}"]
    if run.status == "ended":
        said, seen = (run.failed.error if run.failed else ""), (run.end.detail if run.end else "")
        detail = seen if run.cause == "pruned" else said or seen
        if run.cause != "completed" and detail:
            parts.append(detail)
        if m := headline(run.metrics):
            parts.append(f"{m.name} {m.value:.3f} on {m.split}")
        parts.append(f"{formats.clock(run.t)} in all")
        return " · ".join(parts)
    cells = _cells(run)
    shown = ("loss", "r@1", "ms/step", "RSS", "VRAM")
    parts += [f"{name} {cells[name]}" for name in shown if cells[name]]
    if cells["ETA"]:
        parts.append(f"{cells['ETA']} left")
    return " · ".join(parts)


def output_lines(view: RunView, suite: Path) -> list[str]:
    """`submission saved to /…/submission.csv`: what a run left, of the suite in this folder."""
    run = view.state
    left = run_outputs.collect(run.artifacts, (metric.scores_file for metric in run.metrics))
    place = suite / "runs" / view.folder
    return [f"    {one.kind} saved to {place / one.path}" for one in left]


def suite_rows(state: SuiteState) -> tuple[tuple[tuple[str, bool], ...], list[list[str]]]:
    """Header (name, right-aligned?) and one row a run."""
    rows = []
    differences = apart([view.spec for view in state.runs], seeds=True)
    for view, difference in zip(state.runs, differences, strict=True):
        cells = _cells(view.state)
        what = " ".join(part for part in (_what(view.spec), difference) if part)
        row = [what, _state(view.state)]
        rows.append([*row, *(cells[name] for name, _ in _HEADER[2:])])
    return _HEADER, rows


def apart(specs: Sequence[RunSpec], *, seeds: bool) -> list[str]:
    """What tells each run from those of its subset and model: label, seed, repeat; or nothing.

    Without `seeds` for a table that has a column of them.
    """
    alike: dict[tuple[str, str], list[RunSpec]] = {}
    for spec in specs:
        alike.setdefault((spec.subset, spec.model), []).append(spec)
    found = []
    for spec in specs:
        if spec.trial:  # its settings are shown
            found.append("")
            continue
        group = alike[spec.subset, spec.model]
        parts = [clean_line(spec.label, 40)] if len({s.label for s in group}) > 1 else []
        parts += [f"seed {spec.seed}"] if seeds and len({s.seed for s in group}) > 1 else []
        parts += [f"repeat {spec.repeat + 1}"] if len({s.repeat for s in group}) > 1 else []
        found.append(" ".join(part for part in parts if part))
    return found


def _what(spec: RunSpec) -> str:
    """`emoji_train clip-nano`, with its fold, of a trial with the settings that make it one."""
    trial = formats.settings(spec.trial.settings) if spec.trial else ""
    model = f"{spec.base_model} (trained)" if spec.base_model else spec.model
    return " ".join(part for part in (spec.subset, model, folds.words(spec), trial) if part)


def _state(run: RunState) -> str:
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


def _cells(run: RunState) -> dict[str, str]:
    last, sample, seconds = run.last, run.sample, run.step_seconds
    vram = [g.used for g in sample.gpus if g.used is not None] if sample else []
    rss = sample.rss_tree if sample else None
    return {
        "step": str(run.step) if run.step else "",
        "loss": f"{last.loss:.3f}" if last else "",
        "r@1": f"{last.metrics['r@1']:.3f}" if last and "r@1" in last.metrics else "",
        "ms/step": f"{seconds * 1000:.1f}" if seconds else "",
        "ETA": formats.clock(run.eta_seconds) if run.eta_seconds is not None else "",
        "RSS": formats.size(rss) if rss is not None else "",
        "VRAM": formats.size(sum(vram)) if vram else "",
    }
