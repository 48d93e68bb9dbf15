"""Whether what a run needs can be had here: data, weights, packages; and what a model brings along.

Apart from the plan, which is about what was asked; here is about what there is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets_mm.recipes.recipe import RecipeError


def needs_model(engine: str) -> bool:
    """Whether an engine works on subsets with models; the probe does on nothing."""
    from engines import catalog

    return bool(catalog.load(engine).NEEDS)


def model_settings(engine: str, model: str) -> dict[str, Any]:
    """Defaults that the model's entry brings; they lie below the plan's own settings."""
    from engines import model_catalog

    return dict(model_catalog.load(model).settings) if needs_model(engine) else {}


def mismatches(engine: str, subset: str, model: str) -> list[str]:
    """What of a run is for another engine; known before its settings are looked at."""
    from engines import model_catalog

    if not needs_model(engine):
        return []
    found = [_wrong_form(engine, subset)]
    entry = model_catalog.load(model)
    if entry.engines and engine not in entry.engines:
        found.append(
            f"model '{model}' is for engine {_either(entry.engines)}, not for engine {engine}"
        )
    return [sentence for sentence in found if sentence]


def _wrong_form(engine: str, subset: str) -> str:
    """The sentence about a subset whose records another engine works on; empty: it is for this."""
    from datasets_mm import catalog as subsets
    from engines import catalog

    form = catalog.load(engine).FORM
    try:
        found = subsets.form(subset)
    except RecipeError:
        return ""  # `reasons` says what is wrong with it
    if found == form:
        return ""
    fitting = [name for name in catalog.names() if found == catalog.load(name).FORM]
    return (
        f"subset '{subset}' is for engine {_either(fitting)}: "
        f"it has {found}, and {engine} needs {form}"
    )


def _either(names: Sequence[str]) -> str:
    return " or ".join(names)


def device_conflict(devices: Sequence[int], *, cpu: bool) -> list[str]:
    """Why GPUs that a plan names and its `cpu` exclude each other; none: they do not."""
    both = cpu and devices
    return ["cpu = true hides every GPU; leave out devices, or leave out cpu"] if both else []


def device_problem(devices: Sequence[int], nodes: Path = Path("/dev")) -> str | None:
    """Why a GPU that a plan names cannot be here, from its device nodes alone; None: it may be.

    Where another kernel holds the GPU (`dxg`) there are no nodes to count, and nothing is said.
    """
    count = len(list(nodes.glob("nvidia[0-9]*")))
    over = [index for index in devices if index >= count]
    if not over or (nodes / "dxg").exists():
        return None
    have = "no GPU" if not count else f"{count} GPU" if count == 1 else f"{count} GPUs"
    remedy = "name none, or give --cpu" if not count else f"indexes go from 0 to {count - 1}"
    return f"device {over[0]}: this machine has {have}; {remedy}"


def reasons(engine: str, subset: str, model: str, params: Mapping[str, Any]) -> list[str]:
    """Why a run cannot start here; none: it can. `params`: complete settings of the engine."""
    from datasets_mm import catalog as subsets
    from engines import model_catalog

    if not needs_model(engine):
        return []
    root = params.get("data_root")
    data_root = Path(root) if root else None
    named = (subset, *(params.get("evaluate_on") or ()), params.get("infer_on"))
    wanted = dict.fromkeys(name for name in named if name)
    pictures = params.get("image_root") or ""
    found = [subsets.problem(name, data_root, pictures) for name in wanted]
    entry = model_catalog.load(model)
    found.append(model_catalog.problem(entry))
    found += [_wrong_form(engine, name) for name in wanted if name != subset]
    return [sentence for sentence in found if sentence]
