"""The forecasts of a plan's runs, their way into specs and records, and the refusal.

Runs that differ only in seed, fold or repeat ask the same question, which is asked once.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import psutil

from datasets_mm import catalog
from engines import model_catalog
from engines.memory_query import OTHERS, Need, Want
from engines.protocol import RunSpec
from workbench.memory_estimate import estimator_process, fit_check, gpus, policy
from workbench.memory_estimate.fit_check import Host
from workbench.memory_estimate.gpus import Gpu
from workbench.planning.plan import PlanError
from workbench.processes import gpu_selection
from workbench.telemetry.gpus import library_present

ENGINES: Final = ("captioning", "retrieval", "vqa")
"""Those that can be rehearsed (`engines.<name>.fit`)."""
EVERYWHERE: Final = ("seed", "fold", "data_root", "image_root", "epochs", "max_steps", "lr")
"""Settings that change no tensor's size: left out of the question, so that it is asked once."""


class Unknown(NamedTuple):
    """Where a run will compute is not known, so nothing can be forecast."""

    reason: str


Place = Gpu | Host | Unknown


def locate(name: str, indexes: Sequence[int], *, cpu: bool) -> Place:
    """Where a plan's runs will compute: a GPU that was named, or what this machine has for them.

    Raises:
        PlanError: no GPU of that name is known.
    """
    if name:
        try:
            return gpus.named(name)
        except gpus.UnknownGpuError as error:
            raise PlanError([str(error)]) from None
    host = Host(psutil.virtual_memory().available)
    if cpu or not library_present() or (not indexes and gpu_selection.hides_all(os.environ)):
        return host
    answer = gpus.facts()
    every = gpus.listed(answer)
    if not every:
        return Unknown("the driver does not say which GPUs are here")
    visible = gpu_selection.resolve(indexes, os.environ, every)
    kinds = {(info.name, info.memory_bytes) for info in visible.gpus}
    if not kinds or (not visible.certain and len(kinds) > 1):
        return Unknown(visible.reason)
    gpu = gpus.of(visible.gpus[0], answer)
    if not gpu.memory_bytes or not gpu.capability:
        lacking = "compute capability" if gpu.memory_bytes else "memory"
        return Unknown(f"NVML does not tell the {lacking} of {gpu.name or 'the GPU'}")
    return gpu


def want(spec: RunSpec, where: Gpu | Host, **changed: Any) -> Want:
    """The question about a run; `changed`: settings instead of its own, `model` its model."""
    model = changed.pop("model", spec.base_model or spec.model)
    params = {key: value for key, value in spec.params.items() if key not in EVERYWHERE}
    on = {"capability": where.capability} if isinstance(where, Gpu) else {"target": "cpu"}
    return Want(
        engine=spec.engine, model=model, params={**params, **changed},
        trains=spec.task in ("train", "probe"), subsets=built(spec), **on,
    )  # fmt: skip


def built(spec: RunSpec) -> tuple[str, ...]:
    """Folders of the subsets that a run reads, as far as they are built; its own first.

    None where its own is not: the others would pass for it.
    """
    known, root = set(catalog.names()), Path(spec.cache_root)
    if spec.subset not in known:
        return ()
    own, asked = catalog.summary(spec.subset, root), spec.params.get("evaluate_on")
    more = [spec.params.get(key, "") for key in ("validate_on", "infer_on")]
    names = (*(own.evaluate_on if asked is None else asked), *more)
    folders = [own.folder, *(catalog.summary(n, root).folder for n in names if n in known)]
    if own.folder is None:
        return ()
    return tuple(dict.fromkeys(str(folder) for folder in folders if folder))


def judged(
    specs: Sequence[RunSpec], where: Gpu | Host, cache_root: Path, *, anyway: bool
) -> tuple[list[RunSpec], list[str]]:
    """Specs with their forecasts, and one line of talk for each different forecast.

    Raises:
        PlanError: a run does not fit even one sample at a time, and `anyway` was not said.
    """
    lines: dict[str, None] = {}
    problems: dict[str, None] = {}
    made = []
    for spec, need in zip(specs, _answers(specs, where, cache_root), strict=True):
        if need is not None:
            lines[_line(spec, need, where)] = None
        if need is None or need.problem:
            made.append(spec)
            continue
        made.append(spec.model_copy(update={"fit": recorded(need, where)}))
        if not anyway and (sentence := _refusal(spec, need, where, cache_root)):
            problems[sentence] = None
    if problems:
        raise PlanError(list(problems))
    return made, list(lines)


def _asked(spec: RunSpec) -> bool:
    return spec.engine in ENGINES and spec.task != "ensemble"


def _answers(specs: Sequence[RunSpec], where: Gpu | Host, cache_root: Path) -> list[Need | None]:
    """Of each run. A small model on a CPU is not made to wait: only an old answer is taken."""
    known: dict[int, Need | None] = {}
    open_: dict[int, Want] = {}
    for row, spec in enumerate(specs):
        if not _asked(spec):
            continue
        if isinstance(where, Host) and _from_scratch(spec):
            known[row] = estimator_process.remembered(want(spec, where), cache_root)
        else:
            open_[row] = want(spec, where)
    known |= zip(open_, estimator_process.ask(list(open_.values()), cache_root), strict=True)
    return [known.get(row) for row in range(len(specs))]


def _from_scratch(spec: RunSpec) -> bool:
    """Its model is made here, so it is small; loading torch to ask takes longer than its start."""
    try:
        entry = model_catalog.load(spec.base_model or spec.model)
    except (LookupError, ValueError):
        return False
    parts = [part for part in (entry, entry.vision, entry.llm) if part is not None]
    return not any(part.hub or part.path for part in parts) and not spec.params.get("llm")


def _line(spec: RunSpec, need: Need, where: Gpu | Host) -> str:
    known = not need.problem
    said = (
        fit_check.sentence(fit_check.worst(need, where), where)
        if known
        else f"n/a ({need.problem})"
    )
    return f"memory forecast, {spec.model}: {said}"


def recorded(need: Need, where: Gpu | Host) -> dict[str, Any]:
    """The forecast as the record will have it: of the process that is measured."""
    other = need.host.get(OTHERS, 0) if isinstance(where, Host) else 0
    return {
        "gpu": where.name if isinstance(where, Gpu) else "",
        "tensors": {phase: sum(parts.values()) for phase, parts in need.phases.items()},
        "total": {
            phase: fit_check.judge(need, phase, where).total - other for phase in need.phases
        },
    }


def _refusal(spec: RunSpec, need: Need, where: Gpu | Host, cache_root: Path) -> str:
    """Why the run must not start; empty: it may."""
    if not fit_check.hopeless(need, where):
        return ""
    for smallest in policy.smallest(spec.params):
        least = estimator_process.ask([want(spec, where, **smallest)], cache_root)[0]
        if not least.problem:
            break
    if least.problem or not fit_check.hopeless(least, where):
        return ""
    found = fit_check.worst(least, where)
    trains = spec.task == "train"
    left = policy.lowerings({**spec.params, **smallest}, spec.model, found.phase, trains=trains)
    ways = [one.words for one in left]
    larger = "take a larger GPU" if isinstance(where, Gpu) else "close other programs"
    remedy = f"lower {', then '.join(ways)}" if ways else larger
    tried = " and ".join(f"{key} = {value}" for key, value in smallest.items())
    return (
        f"run {spec.run_id}: {fit_check.sentence(found, where)}, even with {tried}; {remedy}; "
        "--anyway starts it all the same"
    )
