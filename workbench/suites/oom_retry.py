"""OOM retry: the settings with which the next attempt of a run needs less memory.

Pure functions. A process whose device ran out of memory is not used again: its allocator is
fragmented, and its gradients may hold half a step. Each retry is a new attempt, which continues
from the last checkpoint. The state is in the journal's Oom entries, so a resumed suite has it too.
"""

from __future__ import annotations

from typing import Any, Final

from engines import catalog
from engines.messages import Oom
from engines.protocol import RunSpec
from workbench.suites.state import RunState

TRAINING_SETTINGS: Final = frozenset({"batch", "grad_cache_chunk"})
"""Settings of a retry that change how a training step is computed."""


def overrides(run: RunState) -> dict[str, Any]:
    """Settings that replace those of the spec in the run's next attempt."""
    return {key: value for oom in run.ooms for key, value in oom.params.items()}


def next_attempt(spec: RunSpec, run: RunState) -> Oom | None:
    """The retry after an attempt that ran out of memory; None: nothing smaller is left."""
    if count_retries(run) >= spec.oom_retries:
        return None
    smaller = catalog.reduce_memory(spec.engine, {**spec.params, **overrides(run)}, run.phase)
    return smaller.model_copy(update={"step": run.step}) if smaller is not None else None


def count_retries(run: RunState) -> int:
    """How many retries the run has used."""
    return sum(bool(oom.params) for oom in run.ooms)


def describe_outcome(retry: Oom | None, run: RunState) -> str:
    """What follows an OOM, as a suffix of the engine's error; empty: nothing to add."""
    if retry is not None:
        return f"; the next attempt computes {retry.after} at once instead of {retry.before}"
    if count := count_retries(run):
        attempts = "1 smaller attempt" if count == 1 else f"{count} smaller attempts"
        return f"; given up after {attempts}"
    return ""


def describe_batch(run: RunState) -> str:
    """The effective batch and its micro-batches: `64`, or `64 (2 × 32)` after an OOM."""
    if run.plan is None:
        return ""
    effective = run.plan.effective_batch
    ooms = [oom for oom in run.ooms if oom.params.keys() & TRAINING_SETTINGS]
    if not ooms or ooms[-1].after >= effective:
        return f"{effective:,}"
    after = ooms[-1].after
    return f"{effective:,} ({-(-effective // after)} × {after})"
