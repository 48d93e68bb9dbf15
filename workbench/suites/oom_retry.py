"""The OOM ladder: what the next attempt of a run does with less memory, if there is one.

Pure. A process whose device ran out of memory is not used again: its allocator is fragmented, and
half a step may be in its gradients. So every rung is a fresh attempt, which goes on from the last
checkpoint. The journal's Oom entries are all that is remembered, so a resumed suite knows them too.
"""

from __future__ import annotations

from typing import Any, Final

from engines import catalog
from engines.protocol import Oom, RunSpec
from workbench.suites.state import RunState

TRAINING: Final = frozenset({"batch", "grad_cache_chunk"})
"""Settings of a rung that change how a training step is computed."""


def changes(run: RunState) -> dict[str, Any]:
    """Settings that the run's next attempt has instead of the spec's."""
    return {key: value for oom in run.ooms for key, value in oom.params.items()}


def following(spec: RunSpec, run: RunState) -> Oom | None:
    """The next rung after an attempt that ran out of memory; None: nothing smaller is left."""
    if taken(run) >= spec.oom_retries:
        return None
    found = catalog.smaller(spec.engine, {**spec.params, **changes(run)}, run.phase)
    return found.model_copy(update={"step": run.step}) if found is not None else None


def taken(run: RunState) -> int:
    """Rungs that the run is down already."""
    return sum(bool(oom.params) for oom in run.ooms)


def outcome(rung: Oom | None, run: RunState) -> str:
    """What comes of an OOM, to stand behind the engine's own sentence."""
    if rung is not None:
        return f"; the next attempt computes {rung.after} at once instead of {rung.before}"
    if count := taken(run):
        attempts = "1 smaller attempt" if count == 1 else f"{count} smaller attempts"
        return f"; given up after {attempts}"
    return ""


def batch_words(run: RunState) -> str:
    """The effective batch and how it is made up: `64`, or `64 (2 × 32)` after an OOM."""
    if run.plan is None:
        return ""
    effective = run.plan.effective_batch
    rungs = [oom for oom in run.ooms if oom.params.keys() & TRAINING]
    if not rungs or rungs[-1].after >= effective:
        return f"{effective:,}"
    after = rungs[-1].after
    return f"{effective:,} ({-(-effective // after)} × {after})"
