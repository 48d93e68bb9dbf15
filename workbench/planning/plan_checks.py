"""Problems of a plan, one sentence each.

`find_problems`: before its expansion; `find_lane_problems`: with the runs that it expands to.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from datasets_mm.strict_toml import suggest_nearest
from workbench.planning import availability, run_matrix

if TYPE_CHECKING:
    from engines.protocol import RunSpec
    from workbench.planning.plan import SuitePlan


def find_problems(plan: SuitePlan) -> list[str]:
    """All problems of a plan, one sentence each."""
    return [
        *_find_unknown_names(plan),
        *_find_duplicate_labels(plan),
        *_find_unused_overrides(plan),
        *_find_unused_exclusions(plan),
        *_find_unknown_reasons(plan),
        *availability.find_device_conflict(plan.devices, cpu=plan.cpu),
    ]


def find_lane_problems(plan: SuitePlan, specs: Sequence[RunSpec]) -> list[str]:
    """Why the plan's lanes cannot execute its runs, one sentence each."""
    problems = []
    if plan.lanes is not None and plan.search is not None:
        problems.append("lanes: trials of a search run one after the other; leave out lanes")
    if plan.cpu and isinstance(plan.lanes, tuple):
        problems.append("lanes: cpu = true hides every GPU; give a number of lanes")
    if plan.gpus_per_run and plan.lanes is None:
        problems.append("gpus_per_run: it is the size of a lane; give lanes too")
    ranks = max((int(spec.params.get("nproc_per_node") or 1) for spec in specs), default=1)
    if 0 < plan.gpus_per_run < ranks and not plan.cpu:
        processes = f"a run has {ranks} processes (nproc_per_node)"
        problems.append(f"gpus_per_run = {plan.gpus_per_run}: {processes}, a GPU for each")
    return problems


def _find_unknown_names(plan: SuitePlan) -> list[str]:
    from datasets_mm import catalog as subsets
    from engines import catalog, model_catalog

    engine_names = catalog.names()
    engines = run_matrix.collect_names(plan, "engines")
    problems = [
        f"no engine '{engine}'{suggest_nearest(engine, engine_names)}"
        for engine in engines
        if engine not in engine_names
    ]
    if problems or not any(availability.needs_model(engine) for engine in engines):
        return problems
    subset_names = subsets.names()
    problems += [
        f"no subset '{name}'{suggest_nearest(name, subset_names)}"
        for name in run_matrix.collect_names(plan, "subsets")
        if name not in subset_names
    ]
    for name in run_matrix.collect_names(plan, "models"):
        try:
            model_catalog.load(name)
        except (LookupError, ValueError) as error:
            problems.append(str(error.args[0] if error.args else error))
    return problems


def _find_duplicate_labels(plan: SuitePlan) -> list[str]:
    problems = []
    for table, parts in (("variant", plan.variants), ("run", plan.runs)):
        labels = [part.label for part in parts]
        duplicates = sorted({label for label in labels if labels.count(label) > 1})
        problems += [
            f"two [[{table}]] have the label '{label}'; rename one" for label in duplicates
        ]
    return problems


def _find_unknown_reasons(plan: SuitePlan) -> list[str]:
    """Reasons (`why`) for names that the plan does not run."""
    names = [
        name for kind in ("subsets", "models") for name in run_matrix.collect_names(plan, kind)
    ]
    names += [variant.label for variant in plan.variants] + [block.label for block in plan.runs]
    reasons = plan.why if isinstance(plan.why, dict) else {}
    return [
        f"why: '{name}' is no subset, model or variant of the plan{suggest_nearest(name, names)}"
        for name in reasons
        if name not in names
    ]


def _find_unused_overrides(plan: SuitePlan) -> list[str]:
    """Overrides whose keys match no run."""
    cells = list(run_matrix.iterate_cells(plan))
    return [
        f"[[override]] number {number} fits no run; "
        "check its engine, subset, model, seed and variant"
        for number, override in enumerate(plan.overrides, 1)
        if not any(override.matches(cell) for cell in cells)
    ]


def _find_unused_exclusions(plan: SuitePlan) -> list[str]:
    """Exclusions whose keys match no run, and those that leave none."""
    cells = list(run_matrix.iterate_product(plan))
    problems = [
        f"[[exclude]] number {number} fits no run; "
        "check its engine, subset, model, seed, repeat, variant and run"
        for number, exclusion in enumerate(plan.exclusions, 1)
        if not any(exclusion.matches(cell) for cell in cells)
    ]
    if not problems and plan.exclusions and not list(run_matrix.iterate_cells(plan)):
        problems.append("[[exclude]]: no run is left; take one of them out")
    return problems
