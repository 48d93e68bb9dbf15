"""Text summaries for headless output: a run as one line, a suite as rows of a table."""

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

TRAIN_SPLIT: Final = "train"
"""Split of the captions of training media (`engines.captioning`)."""
_HEADER = (
    ("run", False), ("state", False), ("step", True), ("loss", True), ("r@1", True),
    ("ms/step", True), ("ETA", True), ("RSS", True), ("VRAM", True),
)  # fmt: skip


Measured = TypeVar("Measured", protocol.Metric, schema.MetricRecord)


def headline_metric(metrics: Sequence[Measured]) -> Measured | None:
    """The metric shown in a line: recall@1 or accuracy, else the first of held-out data."""
    plain = [metric for metric in metrics if metric.name.lower() in ("recall@1", "accuracy")]
    held_out = [metric for metric in metrics if metric.split != TRAIN_SPLIT]
    return next(iter(plain or held_out or metrics), None)


def progress_line(view: RunView, number: int, total: int) -> str:
    """`[2/4] emoji_train clip-nano · train 120/300 40 % · loss 2.31 · …`."""
    run, spec = view.state, view.spec
    parts = [f"[{number}/{total}] {_run_name(spec)} · {_format_state(run)}"]
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
    cells = _format_cells(run)
    shown = ("loss", "r@1", "ms/step", "RSS", "VRAM")
    parts += [f"{name} {cells[name]}" for name in shown if cells[name]]
    if cells["ETA"]:
        parts.append(f"{cells['ETA']} left")
    return " · ".join(parts)


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
    rows = []
    differences = distinguishing_labels([view.spec for view in state.runs], seeds=True)
    for view, difference in zip(state.runs, differences, strict=True):
        cells = _format_cells(view.state)
        label = " ".join(part for part in (_run_name(view.spec), difference) if part)
        row = [label, _format_state(view.state)]
        rows.append([*row, *(cells[name] for name, _ in _HEADER[2:])])
    return _HEADER, rows


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
    return " ".join(part for part in (spec.subset, model, folds.fold_label(spec), trial) if part)


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


def _format_cells(run: RunState) -> dict[str, str]:
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
