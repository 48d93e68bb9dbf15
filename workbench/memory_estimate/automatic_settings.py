"""Automatic settings: batch sizes by GPU memory, and settings from environment variables.

Precedence, lowest first: the engine's defaults, the preset for the GPU's memory, the model's entry,
the plan, the environment, `--set`. `origins` of the plan names the source of each such setting.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from engines.protocol import count_ranks
from workbench.memory_estimate import environment, policy
from workbench.memory_estimate.gpus import GpuModel
from workbench.planning import availability, run_matrix
from workbench.planning.plan import SuitePlan

ENGINE: Final = "vqa"
"""The engine that the GPU presets are for; other engines keep their batch sizes."""


def apply_automatic_settings(
    plan: SuitePlan, flag_keys: Collection[str], gpu: GpuModel | None, variables: Mapping[str, str]
) -> SuitePlan:
    """The plan with settings from the environment and the GPU preset.

    `flag_keys`: settings given by `--set`, which are not changed. A plan of several engines is
    returned as it is.

    Raises:
        PlanError: a variable holds no number.
    """
    engines = set(run_matrix.collect_names(plan, "engines"))
    if len(engines) != 1:
        return plan
    engine = engines.pop()
    variable_settings, origins = environment.read_settings(variables, engine)
    if engine != ENGINE and not variable_settings:
        return plan
    variable_settings = {
        key: value for key, value in variable_settings.items() if key not in flag_keys
    }
    origins = {key: origins[key] for key in variable_settings}
    settings = {**plan.settings, **variable_settings}
    if engine != ENGINE:
        return plan.model_copy(update={"settings": settings, "origins": origins})
    decided = settings.keys() | _planned_keys(plan)
    batch_settings, batch_origins = _batch_settings(
        settings, decided, gpu, environment.effective_batch(variables)
    )
    if "gradient_accumulation_steps" in flag_keys:
        batch_settings.pop("gradient_accumulation_steps", None)
    origins |= {key: batch_origins[key] for key in batch_settings}
    update = {"settings": {**settings, **batch_settings}, "origins": origins}
    return plan.model_copy(update=update)


def _planned_keys(plan: SuitePlan) -> set[str]:
    """Settings that run blocks, variants, overrides or the models' entries set."""
    keys: set[str] = set()
    tables = [part.settings for part in plan.runs] + [part.settings for part in plan.variants]
    for settings in tables + [part.settings for part in plan.overrides]:
        keys |= settings.keys()
    for model in run_matrix.collect_names(plan, "models"):
        try:
            keys |= availability.model_settings(ENGINE, model).keys()
        except (LookupError, ValueError):
            continue  # expansion reports it
    return keys


def _batch_settings(
    settings: Mapping[str, Any],
    decided: Collection[str],
    gpu: GpuModel | None,
    effective: int | None,
) -> tuple[dict[str, Any], dict[str, str]]:
    """Batch sizes and gradient accumulation where `decided` has none, and their sources.

    `effective`: samples of an optimizer step that the environment asks for.
    """
    batch_settings: dict[str, Any] = {}
    origins: dict[str, str] = {}
    preset = policy.select_preset(gpu.memory_bytes) if gpu else None
    if preset and gpu and "batch" not in decided:
        batch_settings["batch"] = preset.batch
        origins["batch"] = f"rule for {gpu.name}: {preset.source}"
        effective = effective or (
            None if "gradient_accumulation_steps" in decided else policy.TARGET_EFFECTIVE_BATCH
        )
    if preset and gpu and "eval_batch_size" not in decided:
        batch_settings["eval_batch_size"] = preset.eval_batch_size
        origins["eval_batch_size"] = f"rule for {gpu.name}: {preset.source}"
    batch = batch_settings.get("batch", settings.get("batch"))
    if effective and isinstance(batch, int) and batch > 0:
        step_batch = batch * count_ranks(settings)
        count = policy.accumulation_steps(effective, step_batch)
        batch_settings["gradient_accumulation_steps"] = count
        origins["gradient_accumulation_steps"] = (
            f"effective batch {effective} = {step_batch} x {count}"
        )
    return batch_settings, origins
