"""What is wrong with a plan by itself, before any of its runs is looked at.

Apart from the plan: each check is one function, and all of them are told at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from datasets_mm.strict_toml import nearest
from workbench.planning import availability, run_matrix

if TYPE_CHECKING:
    from workbench.planning.plan import SuitePlan


def problems(plan: SuitePlan) -> list[str]:
    """One sentence for each mistake."""
    return [
        *_unknown_names(plan),
        *_same_labels(plan),
        *_unused_overrides(plan),
        *_unknown_reasons(plan),
        *availability.device_conflict(plan.devices, cpu=plan.cpu),
    ]


def _unknown_names(plan: SuitePlan) -> list[str]:
    from datasets_mm import catalog as subsets
    from engines import catalog, model_catalog

    engine_names = catalog.names()
    engines = run_matrix.every(plan, "engines")
    found = [
        f"no engine '{engine}'{nearest(engine, engine_names)}"
        for engine in engines
        if engine not in engine_names
    ]
    if found or not any(availability.needs_model(engine) for engine in engines):
        return found
    known_subsets = subsets.names()
    found += [
        f"no subset '{name}'{nearest(name, known_subsets)}"
        for name in run_matrix.every(plan, "subsets")
        if name not in known_subsets
    ]
    for name in run_matrix.every(plan, "models"):
        try:
            model_catalog.load(name)
        except (LookupError, ValueError) as error:
            found.append(str(error.args[0] if error.args else error))
    return found


def _same_labels(plan: SuitePlan) -> list[str]:
    found = []
    for what, parts in (("variant", plan.variants), ("run", plan.runs)):
        labels = [part.label for part in parts]
        twice = sorted({label for label in labels if labels.count(label) > 1})
        found += [f"two [[{what}]] have the label '{label}'; rename one" for label in twice]
    return found


def _unknown_reasons(plan: SuitePlan) -> list[str]:
    """A reason for something that the plan does not run is a typo in its name."""
    known = [name for kind in ("subsets", "models") for name in run_matrix.every(plan, kind)]
    known += [variant.label for variant in plan.variants] + [block.label for block in plan.runs]
    reasons = plan.why if isinstance(plan.why, dict) else {}
    return [
        f"why: '{name}' is no subset, model or variant of the plan{nearest(name, known)}"
        for name in reasons
        if name not in known
    ]


def _unused_overrides(plan: SuitePlan) -> list[str]:
    """An override that fits no run is a typo in its keys."""
    product = list(run_matrix.product(plan))
    return [
        f"[[override]] number {number} fits no run; "
        "check its engine, subset, model, seed and variant"
        for number, override in enumerate(plan.overrides, 1)
        if not any(override.fits(cell) for cell in product)
    ]
