"""Whether what a run needs can be had here: data, weights, packages; and what a model brings along.

Apart from the plan, which is about what was asked; here is about what there is.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def needs_model(engine: str) -> bool:
    """Whether an engine works on subsets with models; the probe does on nothing."""
    from engines import catalog

    return bool(catalog.load(engine).NEEDS)


def model_settings(engine: str, model: str) -> dict[str, Any]:
    """Defaults that the model's entry brings; they lie below the plan's own settings."""
    from engines import models

    return dict(models.load(model).settings) if needs_model(engine) else {}


def reasons(engine: str, subset: str, model: str, params: Mapping[str, Any]) -> list[str]:
    """Why a run cannot start here; none: it can. `params`: complete settings of the engine."""
    from datasets_mm import catalog as subsets
    from engines import models

    if not needs_model(engine):
        return []
    root = params.get("data_root")
    data_root = Path(root) if root else None
    named = (subset, *(params.get("evaluate_on") or ()), params.get("infer_on"))
    wanted = dict.fromkeys(name for name in named if name)
    pictures = params.get("image_root") or ""
    found = [subsets.problem(name, data_root, pictures) for name in wanted]
    entry = models.load(model)
    found.append(models.problem(entry))
    if entry.engines and engine not in entry.engines:
        found.append(
            f"model '{model}' is not for engine '{engine}'; it is for {', '.join(entry.engines)}"
        )
    return [sentence for sentence in found if sentence]
