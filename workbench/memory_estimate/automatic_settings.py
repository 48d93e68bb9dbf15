"""What a GPU and the environment make of a plan, before it is expanded.

Order, the later winning: the engine's defaults, the rule for the GPU's memory, the model's entry,
the plan, the environment, `--set`. What did not come from a person's plan is kept in `origins`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from workbench.memory_estimate import environment, policy
from workbench.memory_estimate.gpus import Gpu
from workbench.planning import availability, run_matrix
from workbench.planning.plan import SuitePlan

ENGINE: Final = "vqa"
"""Whose notebook the rule is from; other engines' batches are left alone."""


def applied(
    asked: SuitePlan, flagged: Collection[str], gpu: Gpu | None, variables: Mapping[str, str]
) -> SuitePlan:
    """The plan with settings from the environment and the rule. `flagged`: keys given by --set.

    Raises:
        PlanError: a variable holds no number.
    """
    engines = set(run_matrix.every(asked, "engines"))
    if len(engines) != 1:
        return asked
    engine = engines.pop()
    named, origins = environment.read(variables, engine)
    if engine != ENGINE and not named:
        return asked
    named = {key: value for key, value in named.items() if key not in flagged}
    origins = {key: origins[key] for key in named}
    settings = {**asked.settings, **named}
    if engine != ENGINE:
        return asked.model_copy(update={"settings": settings, "origins": origins})
    decided = settings.keys() | _decided(asked)
    more, why = _batches(settings, decided, gpu, environment.effective_batch(variables))
    if "accumulation" in flagged:
        more.pop("accumulation", None)
    origins |= {key: why[key] for key in more}
    update = {"settings": {**settings, **more}, "origins": origins}
    return asked.model_copy(update=update)


def _decided(asked: SuitePlan) -> set[str]:
    """Settings that run blocks, variants, overrides or the models' entries name."""
    found: set[str] = set()
    named = [one.settings for one in asked.runs] + [one.settings for one in asked.variants]
    for settings in named + [one.settings for one in asked.overrides]:
        found |= settings.keys()
    for model in run_matrix.every(asked, "models"):
        try:
            found |= availability.model_settings(ENGINE, model).keys()
        except (LookupError, ValueError):
            continue  # expansion says what is wrong with it
    return found


def _batches(
    settings: Mapping[str, Any], decided: Collection[str], gpu: Gpu | None, effective: int | None
) -> tuple[dict[str, Any], dict[str, str]]:
    """Micro-batch, accumulation and prediction batch, where nobody decided; and why."""
    made: dict[str, Any] = {}
    why: dict[str, str] = {}
    row = policy.rule(gpu.memory_bytes) if gpu else None
    if row and gpu and "batch" not in decided:
        made["batch"] = row.batch
        why["batch"] = f"rule for {gpu.name}: {row.source}"
        effective = effective or (
            None if "accumulation" in decided else policy.TARGET_EFFECTIVE_BATCH
        )
    if row and gpu and "predict_batch" not in decided:
        made["predict_batch"] = row.predict_batch
        why["predict_batch"] = f"rule for {gpu.name}: {row.source}"
    batch = made.get("batch", settings.get("batch"))
    if effective and isinstance(batch, int) and batch > 0:
        ranks = settings.get("nproc_per_node", 1)
        each = batch * ranks if isinstance(ranks, int) and ranks > 0 else batch
        made["accumulation"] = policy.accumulation(effective, each)
        why["accumulation"] = f"effective batch {effective} = {each} x {made['accumulation']}"
    return made, why
