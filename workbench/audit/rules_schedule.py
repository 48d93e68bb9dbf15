"""Audit rules about the length of a training: warm-up, steps, rows, patience, learning rate."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from results.text import formats
from workbench.audit.finding import NO_ROWS, NO_TRAINING, Impossible, Unjudged, Verdict, decide
from workbench.audit.run_facts import RunFacts
from workbench.memory_estimate.plan_estimate import StepCounts

FEW_STEPS: Final = 10
WARMUP_SHARE: Final = 0.5
HIGH_END: Final = 0.1
"""Of the peak rate: where a cosine schedule must have come below it at its end."""


def judge_rate_end(run: RunFacts) -> Verdict:
    """Schedule: its length in micro-batches, while the optimizer steps once in several, ends it at
    a high rate. Accumulation 2 with 10 % warm-up ends a cosine at 59 % of its peak.
    """
    record = run.completed
    if record is None or not run.trains or run.get("schedule") == "constant":
        return Impossible() if run.is_own else Unjudged("no-rates")
    stage = run.stages[-1]
    last = run.rates[-1] if run.rates else record.train.get("lr")
    peak = float(stage.get("lr") or max(run.rates, default=0))
    if last is None or not peak:
        return Unjudged("no-rates")
    if record.steps < max(record.planned_steps, FEW_STEPS):
        return None  # it ended before its schedule
    values = {
        "last": f"{last:.2e}", "peak": f"{peak:.2e}", "share": formats.percent(last / peak),
        "gradient_accumulation_steps": str(stage.get("gradient_accumulation_steps") or 1),
    }  # fmt: skip
    return decide(values, faulty=last > HIGH_END * peak)


def judge_warmup(run: RunFacts) -> Verdict:
    """Warm-up: most of a training, and of a stage, should have the peak rate or its decay."""
    if not run.steps:
        return Unjudged(NO_ROWS if run.trains else NO_TRAINING)
    if not run.is_own and not any({"warmup_steps", "warmup_ratio"} & {*s} for s in run.stages):
        return Unjudged("imported")
    counts = [
        (_count_warmup(stage, steps.total), steps.total)
        for stage, steps in zip(run.stages, run.steps, strict=True)
    ]
    warmup, total = max(counts, key=lambda count: count[0] / max(1, count[1]))
    values = {"warmup": formats.count(warmup), "total": formats.count(total)}
    return decide(values, faulty=total >= FEW_STEPS and warmup > WARMUP_SHARE * total)


def _count_warmup(params: Mapping[str, Any], total: int) -> int:
    stated = params.get("warmup_steps")
    ratio = float(params.get("warmup_ratio") or 0)
    return min(math.ceil(ratio * total) if stated is None else int(stated), total)


def judge_step_count(run: RunFacts) -> Verdict:
    """Optimizer steps: an effective batch that is large for the data leaves few."""
    if not run.steps:
        return Unjudged(NO_ROWS if run.trains else NO_TRAINING)
    steps = min(run.steps, key=lambda steps: steps.total)
    values = {
        "steps": formats.count(steps.total), "per_epoch": formats.count(steps.per_epoch),
        "rows": formats.count(steps.train), "epochs": f"{steps.epochs:g}",
        "batch": str(steps.batch),
        "gradient_accumulation_steps": str(steps.gradient_accumulation_steps),
        "effective": formats.count(_effective_batch(steps)),
    }  # fmt: skip
    on_purpose = any(stage.get("max_steps") for stage in run.stages)
    return decide(values, faulty=steps.total < FEW_STEPS and not on_purpose)


def judge_coverage(run: RunFacts) -> Verdict:
    """Coverage: steps times effective batch against the rows of the training split."""
    if not run.steps:
        return Unjudged(NO_ROWS if run.trains else NO_TRAINING)
    steps, record = max(run.steps, key=lambda steps: steps.total), run.completed
    done = record.steps if record is not None and record.steps else steps.total
    whole_epoch = done >= steps.per_epoch
    effective = _effective_batch(steps)
    reached = steps.train if whole_epoch else min(done * effective, steps.train)
    values = {
        "steps": formats.count(done), "effective": formats.count(effective),
        "reached": formats.count(reached), "rows": formats.count(steps.train),
        "share": formats.percent(1 - reached / max(1, steps.train)),
    }  # fmt: skip
    return decide(values, faulty=not whole_epoch)


def _effective_batch(steps: StepCounts) -> int:
    return steps.batch * steps.gradient_accumulation_steps * steps.ranks


def judge_patience(run: RunFacts) -> Verdict:
    """Early stopping: with as much patience as validations it never ends a training or a stage."""
    if run.get("early_stopping") is None:
        return Unjudged("no-monitor")
    if not run.trains:
        return Unjudged(NO_TRAINING)
    if run.get("validate_every_epochs") is None:
        return Unjudged("imported")
    counts = [
        (int(stage.get("patience") or 1), validations)
        for stage, validations in zip(run.stages, run.validation_counts, strict=True)
        if stage.get("early_stopping")
    ]
    if not counts:
        return None
    patience, validations = max(counts, key=lambda count: count[0] - count[1])
    values = {"validations": str(validations), "patience": str(patience)}
    return decide(values, faulty=patience >= validations)
