"""The forecasts of a plan's runs, their way into specs and records, and the refusal.

Runs that differ only in seed, fold or repeat ask the same question, which is asked once.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from engines.fitting import Need, Want
from engines.protocol import RunSpec
from workbench.fit import asking, gpus, policy, verdict
from workbench.fit.gpus import Gpu
from workbench.plan import PlanError
from workbench.telemetry.gpus import library_present

ENGINES: Final = ("vqa",)
"""Those that can be rehearsed (`engines.<name>.fit`)."""
EVERYWHERE: Final = ("seed", "fold", "data_root", "image_root", "epochs", "max_steps", "lr")
"""Settings that change no tensor's size: left out of the question, so that it is asked once."""


def chosen(name: str, devices: Sequence[int], *, cpu: bool) -> Gpu | None:
    """The GPU that was named, else the one that the plan will use; None: there is none.

    Raises:
        PlanError: no GPU of that name is known.
    """
    if name:
        try:
            return gpus.named(name)
        except gpus.UnknownGpuError as error:
            raise PlanError([str(error)]) from None
    if cpu or not library_present():
        return None
    here = gpus.present()
    index = devices[0] if devices else 0
    return here[index] if index < len(here) else None


def want(spec: RunSpec, gpu: Gpu, **changed: Any) -> Want:
    """The question about a run; `changed`: settings instead of its own, `model` its model."""
    model = changed.pop("model", spec.model)
    params = {key: value for key, value in spec.params.items() if key not in EVERYWHERE}
    return Want(
        engine=spec.engine, model=model, params={**params, **changed},
        trains=spec.task in ("train", "probe"), capability=gpu.capability,
    )  # fmt: skip


def judged(
    specs: Sequence[RunSpec], gpu: Gpu, cache_root: Path, *, anyway: bool
) -> tuple[list[RunSpec], list[str]]:
    """Specs with their forecasts, and one line of talk for each different forecast.

    Raises:
        PlanError: a run does not fit even one sample at a time, and `anyway` was not said.
    """
    asked = [spec for spec in specs if spec.engine in ENGINES and spec.task != "ensemble"]
    wants = list(dict.fromkeys(want(spec, gpu).model_dump_json() for spec in asked))
    needs = dict(
        zip(wants, asking.ask([Want.model_validate_json(w) for w in wants], cache_root),
            strict=True)
    )  # fmt: skip
    lines: dict[str, None] = {}
    problems: dict[str, None] = {}
    made = []
    for spec in specs:
        need = needs.get(want(spec, gpu).model_dump_json()) if spec in asked else None
        if need is None:
            made.append(spec)
            continue
        lines[_line(spec, need, gpu)] = None
        if not need.problem:
            made.append(spec.model_copy(update={"fit": recorded(need, gpu)}))
            if not anyway and (sentence := _refusal(spec, need, gpu, cache_root)):
                problems[sentence] = None
        else:
            made.append(spec)
    if problems:
        raise PlanError(list(problems))
    return made, list(lines)


def _line(spec: RunSpec, need: Need, gpu: Gpu) -> str:
    said = need.problem or verdict.sentence(verdict.worst(need, gpu), gpu)
    return f"memory forecast, {spec.model}: {said}"


def recorded(need: Need, gpu: Gpu) -> dict[str, Any]:
    """The forecast as the record will have it."""
    return {
        "gpu": gpu.name,
        "tensors": {phase: sum(parts.values()) for phase, parts in need.phases.items()},
        "total": {phase: verdict.judge(need, phase, gpu).total for phase in need.phases},
    }


def _refusal(spec: RunSpec, need: Need, gpu: Gpu, cache_root: Path) -> str:
    """Why the run must not start; empty: it may."""
    if verdict.worst(need, gpu).fits:
        return ""
    smallest = {"batch": 1, "predict_batch": 1}
    least = asking.ask([want(spec, gpu, **smallest)], cache_root)[0]
    if least.problem or verdict.worst(least, gpu).fits:
        return ""
    found = verdict.worst(least, gpu)
    ways = [one.words for one in policy.lowerings({**spec.params, **smallest}, spec.model,
                                                  trains=spec.task == "train")]  # fmt: skip
    remedy = f"lower {', then '.join(ways)}" if ways else "take a larger GPU"
    return (
        f"run {spec.run_id}: {verdict.sentence(found, gpu)}, even with batch = 1; {remedy}; "
        "--anyway starts it all the same"
    )
