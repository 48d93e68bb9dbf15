"""Checklist for a run on another machine, and settings to lower there, as lines of text."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, Final

from datasets_mm import catalog as subsets
from datasets_mm.recipes.recipe import PACKAGED
from engines import model_catalog
from engines.memory_query import Phase
from engines.protocol import RunSpec, count_ranks
from workbench.memory_estimate import environment, policy
from workbench.planning import availability

_EXTRA: Final = re.compile(r"workbench-mm\[([\w-]+)\]")
"""An extra in the sentence by which a model's entry says what to install."""


def checklist_lines(specs: Sequence[RunSpec], command: Sequence[str]) -> list[str]:
    """Numbered steps: environment, variables, start command, signs of success, output files."""
    first = specs[0]
    extras = ",".join(sorted(_find_extras(specs)))
    target = f"'.[{extras}]'" if extras else "."
    steps = [
        f"environment: Python 3.11 or newer, `pip install {target}` in the repository at this "
        "commit; `workbench doctor` names what is lacking",
        *_variable_lines(specs),
        f"start: `{shlex.join(command)}` (exit code 0: all runs completed)",
        "before the first step: `memory forecast, …: fits on …`, and each setting that a variable "
        "or a rule has decided",
        "while it runs: the loss falls, `RSS` and `VRAM` stand still after the first epoch; "
        "`CUDA out of memory` is the sign of too little VRAM",
        "at the end: state `completed` for every run; "
        "`workbench results show RUN` has metrics, memory and the files that it left",
        *_output_file_lines(first),
    ]
    return [f"{number}. {step}" for number, step in enumerate(steps, 1)]


def _find_extras(specs: Sequence[RunSpec]) -> set[str]:
    """Extras of the package that the engines, models and subsets of the runs need."""
    extras = set()
    for spec in specs:
        if not availability.needs_model(spec.engine):
            continue
        extras.update(_EXTRA.findall(model_catalog.load(spec.model).install))
        if spec.engine in ("captioning", "vqa"):  # scores of captions; stacking of folds
            extras.add(spec.engine)
        if str(spec.params.get("search", "")).startswith("faiss"):
            extras.add("retrieval")
        if spec.subset in subsets.names():
            source = subsets.root_source(subsets.lineage(spec.subset))
            extras.update(["demo"] if source.adapter in PACKAGED else [])
    return extras


MEMORY_SETTINGS: Final = (
    "quantize", "double_quant", "precision", "lora_rank", "gradient_checkpointing",
    "feature_cache", "long_side", "frames", "max_length",
)  # fmt: skip
"""Settings that memory depends on beside the batch."""


def setting_lines(params: Mapping[str, Any]) -> list[str]:
    """Settings of memory, gradients, early stopping and prediction, one line each."""

    def list_settings(*names: str) -> str:
        settings = [f"`{n}={params[n]}`" for n in names if params.get(n) not in (None, "")]
        return ", ".join(settings)

    memory = list_settings(*MEMORY_SETTINGS)
    lines = [f"memory: {memory}"] if memory else []
    gradients = list_settings("max_grad_norm", "weight_decay", "warmup_ratio")
    lines += [f"gradients and schedule: {gradients}"] if gradients else []
    if "early_stopping" in params:
        names = ("monitor", "monitor_where", "patience", "min_delta", "load_best")
        stopping = list_settings(*names)
        lines.append(f"early stopping: {stopping if params['early_stopping'] else 'off'}")
    if (subset := params.get("infer_on")) and (
        prediction := list_settings("eval_batch_size", "max_new_tokens")
    ):
        lines.append(
            f"prediction: {prediction}; every row of {subset} is answered, or the run fails"
        )
    return lines


def _variable_lines(specs: Sequence[RunSpec]) -> list[str]:
    """The settings that are equal in all runs, as `export` of the variables that set them."""
    exports = []
    for name, (key, _) in environment.SETTINGS.get(specs[0].engine, {}).items():
        values = {str(spec.params.get(key)) for spec in specs}
        if len(values) == 1 and (value := specs[0].params.get(key)) is not None:
            exports.append(f"{name}={_format_variable(key, value)}")
    effective = {_effective_batch(spec.params) for spec in specs}
    if specs[0].engine == "vqa" and len(effective) == 1:
        exports.insert(1, f"{environment.EFFECTIVE_BATCH}={effective.pop()}")
    return [f"variables: `export {' '.join(exports)}`"] if exports else []


def _format_variable(key: str, value: Any) -> str:
    """The value of a setting in the syntax of its variable."""
    if key == "precision":
        return str(value == "bf16")
    return f"{value:g}" if isinstance(value, float) else str(value)


def _effective_batch(params: Mapping[str, Any]) -> int:
    ranks = count_ranks(params)
    return int(params.get("batch", 1)) * int(params.get("gradient_accumulation_steps", 1)) * ranks


def _output_file_lines(spec: RunSpec) -> list[str]:
    """Paths of the weights and the answers that a run writes."""
    lines = ["weights: `bench_logs/SUITE/runs/RUN/checkpoints/last/`"]
    if spec.params.get("export_model") and spec.params.get("lora_rank"):
        lines.append("adapter for PEFT: `bench_logs/SUITE/runs/RUN/checkpoints/adapter/`")
    if spec.engine == "vqa" and spec.params.get("infer_on"):
        lines.append(
            f"answers: `{spec.params['submission_file']}` in the run's folder, one for every row "
            f"of {spec.params['infer_on']}, in the order of the file"
        )
    return lines


def remedy_lines(spec: RunSpec, phase: Phase) -> list[str]:
    """What to lower if memory does not suffice after all, in the order of `list_reductions`."""
    trains = spec.task in ("train", "probe")
    reductions = [
        w.description for w in policy.list_reductions(spec.params, spec.model, phase, trains=trains)
    ]
    if not reductions:
        return ["nothing of this plan can be lowered; take a larger GPU"]
    lines = [f"one after the other: {'; '.join(reductions)}"]
    if spec.engine == "vqa":
        lines.append(
            "as variables, after the audit: `PER_DEVICE_BATCH=1`, `LORA_R=24`, `PRED_BATCH_SIZE=1`;"
            " `EFFECTIVE_BATCH_SIZE=12` makes a step shorter and saves no memory"
        )
    lines.append("a run that meets `CUDA out of memory` halves its micro-batch itself and goes on")
    return lines
