"""The audit's checklist for a run on another machine, and what to lower there, as lines of text.

Apart from the tables, which say what a run needs: these lines say what a person does. Pure.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any, Final

from engines.memory_query import Need, Phase
from engines.protocol import RunSpec
from workbench.memory_estimate import environment, fit_check, policy
from workbench.memory_estimate.gpus import Gpu
from workbench.memory_estimate.policy import GB

EXTRAS: Final = {"vqa": "qlora", "captioning": "qlora"}
"""Extra of the package that an engine's 4-bit models need."""


def lines(specs: Sequence[RunSpec], command: Sequence[str]) -> list[str]:
    """Numbered steps: environment, variables, start, what to look for and where it lies."""
    first = specs[0]
    extra = f"[{EXTRAS[first.engine]}]" if first.engine in EXTRAS else ""
    steps = [
        f"environment: Python 3.11, `pip install '.{extra}'` in the repository at this commit; "
        "`workbench doctor` names what is lacking",
        *_variables(specs),
        f"start: `{shlex.join(command)}` (exit code 0: all runs completed)",
        "before the first step: `memory forecast, …: fits on …`, and each setting that a variable "
        "or a rule has decided",
        "while it runs: the loss falls, `RSS` and `VRAM` stand still after the first epoch; "
        "`CUDA out of memory` is the sign of too little VRAM",
        "at the end: state `completed` for every run; "
        "`workbench results show RUN` has metrics, memory and the files that it left",
        *_files(first),
    ]
    return [f"{number}. {step}" for number, step in enumerate(steps, 1)]


def settings(params: Mapping[str, Any]) -> list[str]:
    """What keeps training steady, when it stops, and how it predicts, by the run's settings."""

    def given(*names: str) -> str:
        known = [f"`{n}={params[n]}`" for n in names if params.get(n) not in (None, "")]
        return ", ".join(known)

    steady = given("clip_norm", "weight_decay", "warmup_ratio")
    found = [f"gradients and schedule: {steady}"] if steady else []
    if "early_stopping" in params:
        watched = given("monitor", "patience", "min_delta", "load_best")
        found.append(f"early stopping: {watched if params['early_stopping'] else 'off'}")
    if (asked := params.get("infer_on")) and (
        predicted := given("predict_batch", "max_new_tokens")
    ):
        found.append(f"prediction: {predicted}; every row of {asked} is answered, or the run fails")
    return found


def _variables(specs: Sequence[RunSpec]) -> list[str]:
    """The settings as the variables that set them, where all runs agree."""
    exports = []
    for name, (key, _) in environment.SETTINGS.get(specs[0].engine, {}).items():
        values = {str(spec.params.get(key)) for spec in specs}
        if len(values) == 1 and (value := specs[0].params.get(key)) is not None:
            exports.append(f"{name}={_written(key, value)}")
    effective = {_effective(spec.params) for spec in specs}
    if specs[0].engine == "vqa" and len(effective) == 1:
        exports.insert(1, f"{environment.EFFECTIVE}={effective.pop()}")
    return [f"variables: `export {' '.join(exports)}`"] if exports else []


def _written(key: str, value: Any) -> str:
    """A setting as its variable has it."""
    if key == "precision":
        return str(value == "bf16")
    return f"{value:g}" if isinstance(value, float) else str(value)


def _effective(params: Mapping[str, Any]) -> int:
    ranks = int(params.get("nproc_per_node", 1))
    return int(params.get("batch", 1)) * int(params.get("accumulation", 1)) * ranks


def _files(spec: RunSpec) -> list[str]:
    """Where the weights and the answers lie."""
    found = ["weights: `bench_logs/SUITE/runs/RUN/checkpoints/last/`"]
    if spec.params.get("export_model") and spec.params.get("lora_rank"):
        found.append("adapter for PEFT: `bench_logs/SUITE/runs/RUN/checkpoints/adapter/`")
    if spec.engine == "vqa" and spec.params.get("infer_on"):
        found.append(
            f"answers: `{spec.params['submission_file']}` in the run's folder, one for every row "
            f"of {spec.params['infer_on']}, in the order of the file"
        )
    return found


def remedies(spec: RunSpec, phase: Phase) -> list[str]:
    """What to lower if memory does not suffice after all, in the reports' order."""
    trains = spec.task in ("train", "probe")
    ways = [w.words for w in policy.lowerings(spec.params, spec.model, phase, trains=trains)]
    if not ways:
        return ["nothing of this plan can be lowered; take a larger GPU"]
    found = [f"one after the other: {'; '.join(ways)}"]
    if spec.engine == "vqa":
        found.append(
            "as variables, after the audit: `PER_DEVICE_BATCH=1`, `LORA_R=24`, `PRED_BATCH_SIZE=1`;"
            " `EFFECTIVE_BATCH_SIZE=12` makes a step shorter and saves no memory"
        )
    found.append("a run that meets `CUDA out of memory` halves its micro-batch itself and goes on")
    return found


def audit_estimate(spec: RunSpec, need: Need, where: Gpu) -> str:
    """The audit's own figure beside ours; empty where it is of other settings or another GPU."""
    asked = {"predict_batch": 6, "max_new_tokens": 16, "quantize": "nf4"}
    same = all(spec.params.get(key) == value for key, value in asked.items())
    if spec.engine != "vqa" or spec.model not in policy.AUDITED or not same:
        return ""
    if policy.rule(where.memory_bytes).gigabytes != 22 or "predict" not in need.phases:
        return ""
    ours = fit_check.judge(need, "predict", where).total / GB
    low, high = policy.AUDIT_PREDICTS
    return (
        f"the audit's own estimate: {low} to {high} GB in prediction (24 GB, 6 at once, 16 new "
        f"tokens); ours: {ours:.1f} GB. Neither has been measured on an A10G yet"
    )
