"""Experiments: small bounded runs that tell whether a suspected fault of a run is one.

Each compares the run as it was with one change: twice the loader threads, a tenth of the learning
rate, images of other records. Audit rules and notices name the experiments that they ask for.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from engines import catalog, trained_weights
from engines.param_sections import effective_workers
from engines.protocol import RunSpec
from engines.trained_weights import RUN_PREFIX
from workbench.planning import cost_probe, done_runs
from workbench.planning.plan import SuitePlan
from workbench.planning.run_matrix import Variant
from workbench.processes import gpu_selection

STEPS: Final = 60
"""Timed steps of each side of an experiment that trains."""
AS_IT_WAS: Final = "as it was"
LOADER_THREADS: Final = "loader-threads"
TENTH_RATE: Final = "tenth-rate"
SHUFFLED_IMAGES: Final = "shuffled-images"
SHUFFLED: Final[Mapping[str, Mapping[str, Any]]] = {
    "retrieval": {"evaluate_modalities": ["both", "shuffled"]},
    "vqa": {"shuffled": True, "written": 0, "infer_on": ""},
}
"""Settings by which an engine also evaluates with the images of other records."""
MEASURED_ALWAYS: Final[Mapping[str, str]] = {
    "captioning": "every evaluation of a captioning run compares the losses with the media of "
    "other captions: loss_other_picture in its record",
}


@dataclass(frozen=True)
class Experiment:
    """A change that tells, and what asks for it."""

    code: str
    change: str
    """What is changed, in a few words."""
    answers: str
    """The question that it answers."""
    asked_by: frozenset[str]
    """Codes of audit rules and of notices."""
    find_problem: Callable[[RunSpec, Path], str]
    """Why it is impossible on a run with this spec in this folder; empty: it is possible."""
    find_settings: Callable[[RunSpec], dict[str, Any]]
    """Settings of the changed side."""


def _find_probe_problem(spec: RunSpec) -> str:
    if spec.task not in ("train", "probe"):
        return f"a run of the task {spec.task} trains nothing"
    if not cost_probe.supports_cost_probe(catalog.load(spec.engine).TASKS):
        return f"the engine {spec.engine} has no cost probe"
    return ""


def _find_thread_problem(spec: RunSpec, _folder: Path) -> str:
    has_threads = "num_workers" in spec.params
    return _find_probe_problem(spec) or ("" if has_threads else "its engine has no loader threads")


def _double_threads(spec: RunSpec) -> dict[str, Any]:
    ranks = int(spec.params.get("nproc_per_node") or 1)
    gpu = gpu_selection.sees_gpu(spec.devices, os.environ, cpu=spec.cpu)
    threads = effective_workers(spec.params["num_workers"], gpu=gpu, ranks=ranks)
    return {"num_workers": min(64, max(2, 2 * threads))}


def _find_rate_problem(spec: RunSpec, _folder: Path) -> str:
    if spec.params.get("stages"):
        return "each of its stages has a rate of its own"
    has_rate = isinstance(spec.params.get("lr"), float)
    return _find_probe_problem(spec) or ("" if has_rate else "its engine has no learning rate")


def _find_image_problem(spec: RunSpec, folder: Path) -> str:
    if spec.engine in MEASURED_ALWAYS:
        return MEASURED_ALWAYS[spec.engine]
    if spec.engine not in SHUFFLED:
        return f"the engine {spec.engine} reads no images"
    if spec.task != "train":
        return "it needs a training, whose weights are evaluated"
    if trained_weights.find_checkpoint(folder) is None:
        return trained_weights.explain_absence(folder)
    return ""


EXPERIMENTS: Final = (
    Experiment(
        LOADER_THREADS, "twice the loader threads", "does the device wait for data?",
        frozenset({"data-bound"}), _find_thread_problem, _double_threads,
    ),
    Experiment(
        TENTH_RATE, "a tenth of the learning rate", "is the learning rate too high?",
        frozenset({"loss-not-finite", "mode-collapse", "final-not-best"}), _find_rate_problem,
        lambda spec: {"lr": spec.params["lr"] / 10},
    ),
    Experiment(
        SHUFFLED_IMAGES, "images of other records", "are the images used?",
        frozenset({"pictures-unused", "media-equal"}), _find_image_problem,
        lambda spec: dict(SHUFFLED[spec.engine]),
    ),
)  # fmt: skip


def find_experiment(code: str) -> Experiment | None:
    """The experiment of that code."""
    return next((each for each in EXPERIMENTS if each.code == code), None)


def _full_name(spec: RunSpec) -> str:
    """The run's model as another suite names it: `run:01-…` is one that its own suite trained."""
    if not done_runs.uses_own_model(spec):
        return spec.model
    return f"{RUN_PREFIX}{spec.suite}/{spec.model.removeprefix(RUN_PREFIX)}"


def make_plan(experiment: Experiment, spec: RunSpec, steps: int = STEPS) -> SuitePlan:
    """The plan of an experiment on a run.

    Two cost probes of `steps` steps, as it was and changed; or, of shuffled images, one evaluation
    of the run's trained model, which has both numbers.
    """
    evaluates = experiment.code == SHUFFLED_IMAGES
    fixed = catalog.load(spec.engine).ARCHITECTURE_PARAMS if evaluates else ()
    settings = {k: v for k, v in spec.params.items() if v is not None and k not in fixed}
    changed = experiment.find_settings(spec)
    name = f"{spec.suite}/{spec.run_id}"
    common: dict[str, Any] = {
        "name": f"experiment-{experiment.code}", "engines": (spec.engine,),
        "subsets": (spec.subset,), "seeds": (spec.seed,), "devices": spec.devices, "cpu": spec.cpu,
        "about": f"{experiment.answers} {experiment.change}, on {name}",
    }  # fmt: skip
    if evaluates:
        return SuitePlan(
            **common, models=(f"{RUN_PREFIX}{name}",), task="evaluate", settings=settings | changed,
            label=experiment.change,
        )  # fmt: skip
    return SuitePlan(
        **common, models=(_full_name(spec),), settings=settings, cost_probe=steps,
        variants=(
            Variant(label=AS_IT_WAS), Variant(label=experiment.change, settings=changed),
        ),
    )  # fmt: skip
