"""A plan in words: its runs, what differs from the defaults and why, what it leaves behind."""

from __future__ import annotations

import json
import textwrap
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from datasets_mm import catalog as subsets
from datasets_mm.recipes.recipe import RecipeError
from engines import catalog
from engines.protocol import RunSpec
from results.text.table import Table, TableCell, TableColumn
from workbench.planning import availability, fold_runs, run_matrix
from workbench.planning.plan import SuitePlan
from workbench.planning.run_matrix import PlanCell

MAX_RUNS: Final = 12
"""Runs that are listed one by one."""
WIDTH: Final = 80
ExpandedRuns = Sequence[tuple[PlanCell, RunSpec]]


class SettingSources:
    """Where each setting of a plan comes from."""

    def __init__(self, plan: SuitePlan, plan_source: str, set_keys: Collection[str]) -> None:
        self.plan, self.plan_source, self.set_keys = plan, plan_source, set_keys

    def describe(self, key: str, cell: PlanCell, spec: RunSpec) -> str:
        """The source of a setting of a run, as a person would look for it."""
        layers = run_matrix.list_layers(self.plan, cell)
        if layer := next((layer for layer in reversed(layers) if key in layer.settings), None):
            return layer.source or self._plan_source(key)
        try:
            entry_settings = availability.model_settings(spec.engine, spec.base_model or spec.model)
        except (LookupError, ValueError):
            entry_settings = {}
        if key in entry_settings:
            return f"entry of model {spec.base_model or spec.model}"
        return f"trained model {spec.model}" if spec.base_model else "derived"

    def _plan_source(self, key: str) -> str:
        return "--set" if key in self.set_keys else self.plan.origins.get(key, self.plan_source)


def explain_lines(plan: SuitePlan, runs: ExpandedRuns) -> list[str]:
    """What the plan does, one paragraph a line; `runs`: one for each model, variant and subset."""
    count = _count_runs(plan, runs)
    lines = [f"{plan.name}: {plan.title or plan.about}".removesuffix(": ")]
    lines.append(f"Runs: {count:,}, one after the other{_device(plan)}.")
    lines.append(f"Compared: {_factors(plan)}.")
    lines += [f"  {line}" for line in _run_lines(runs)]
    if plan.cost_probe:
        lines.append(
            f"Cost probe: each run trains {plan.cost_probe} timed steps, then forecasts the epoch."
        )
    if plan.search:
        ranges = "; ".join(f"{name}: {r.describe()}" for name, r in plan.search.ranges.items())
        lines.append(
            f"Search (`workbench search`): {plan.search.trials} trials for the best "
            f"{plan.search.metric}; {ranges}."
        )
    lines.append(
        f"Out of GPU memory: a run starts again with a smaller micro-batch, {plan.oom_retries} "
        f"times at most. Disk full: {plan.on_disk_full}."
    )
    if plan.refuse_on:
        lines.append(f"Starts nothing on a fault of: {', '.join(plan.refuse_on)}.")
    return lines


def differences_table(runs: ExpandedRuns, sources: SettingSources) -> Table:
    """Settings that differ from the engine's defaults, with the runs and the source of each."""
    groups: dict[tuple[str, str, str, str], list[str]] = {}
    for cell, spec in runs:
        defaults = catalog.load(spec.engine).Params().model_dump(mode="json")
        for key, value in spec.params.items():
            if value != defaults.get(key):
                source = sources.describe(key, cell, spec)
                row = (key, _value_text(value), _value_text(defaults.get(key)), source)
                groups.setdefault(row, []).append(cell.variant or cell.block or spec.model)
    rows = []
    for (key, value, default, source), names in groups.items():
        scope = _scope(names, len(runs))
        cells = map(TableCell, (value, default, scope, source))
        rows.append((TableCell(key, "value"), *cells))
    columns = map(TableColumn, ("setting", "value", "default", "runs", "from"))
    return Table(tuple(columns), tuple(rows))


def _scope(names: Sequence[str], count: int) -> str:
    """The runs that a row is about, in at most some 30 characters."""
    if len(names) == count:
        return "all"
    text = ", ".join(dict.fromkeys(names))
    return text if len(text) <= 30 else f"{len(names)} of {count}"


def closing_lines(plan_argument: str) -> list[str]:
    """What to do next with the plan that `plan_argument` names on a command line."""
    return [
        "All other settings have the engine's defaults (docs/reference/settings.md).",
        f"Does it fit: workbench plan {plan_argument}",
        f"Start it:    workbench run {plan_argument}",
        "Afterwards:  workbench report; records are in bench_logs/results.jsonl",
    ]


def _device(plan: SuitePlan) -> str:
    if plan.cpu:
        return ", on the CPU"
    indexes = ", ".join(map(str, plan.devices))
    device = f", on GPU {indexes}" if indexes else ", on the GPUs that this shell shows"
    return f"{device}; memory is estimated for {plan.gpu}" if plan.gpu else device


def _factors(plan: SuitePlan) -> str:
    """The lists of the plan with several values each: what its runs compare."""
    factors = {
        "engines": run_matrix.collect_names(plan, "engines"),
        "blocks": [block.label for block in plan.runs],
        "subsets": run_matrix.collect_names(plan, "subsets"),
        "models": run_matrix.collect_names(plan, "models"),
        "variants": [variant.label for variant in plan.variants],
        "seeds": list(map(str, plan.seeds)),
        "repeats": list(map(str, range(1, plan.repeats + 1))),
    }
    several = [f"{len(v)} {name} ({', '.join(v)})" for name, v in factors.items() if len(v) > 1]
    return " × ".join(several) or "nothing"


def _run_lines(runs: ExpandedRuns) -> list[str]:
    lines = [_run_line(number, spec) for number, (_, spec) in enumerate(runs[:MAX_RUNS], 1)]
    if (rest := len(runs) - MAX_RUNS) > 0:
        lines.append(f"… and {rest} more; `--dry-run` of `workbench run` lists all")
    return lines


def _run_line(number: int, spec: RunSpec) -> str:
    """`1. retrieval, train clip-nano on emoji_train for 1 epoch; then evaluate on emoji_val`."""
    text = f"{number}. {spec.label}: " if spec.label else f"{number}. "
    text += f"{spec.engine}, {spec.task} {spec.model}"
    text += f" on {spec.subset}" if availability.needs_model(spec.engine) else ""
    if spec.task == "train":
        text += f" {_length(spec.params)}"
        evaluated = _evaluated_subsets(spec)
        text += f"; then evaluate on {', '.join(evaluated)}" if evaluated else "; no evaluation"
    if _fold_count(spec) > 1:
        text += f"; {spec.params[fold_runs.FOLDS]} folds and their ensemble"
    return text


def _length(params: Mapping[str, Any]) -> str:
    stages = catalog.stage_params(params)
    if len(stages) > 1:
        names = [stage.get("name") or "stage" for stage in params["stages"]]
        parts = [f"{name} {s['epochs']:g}" for name, s in zip(names, stages, strict=True)]
        return f"in {len(stages)} stages (epochs: {', '.join(parts)})"
    if limit := stages[0].get("max_steps"):
        return f"for {_plural(limit, 'step')}"
    epochs = float(stages[0].get("epochs", 1))
    return f"for {epochs:g} epoch{'' if epochs == 1 else 's'}"


def _evaluated_subsets(spec: RunSpec) -> Sequence[str]:
    """Subsets of the evaluation after a training; unset: those that the recipe names."""
    chosen = spec.params.get("evaluate_on")
    if chosen is not None:
        return list(chosen)
    try:
        return subsets.load(spec.subset).evaluate_on
    except RecipeError:
        return []


def _count_runs(plan: SuitePlan, runs: ExpandedRuns) -> int:
    """The runs of all seeds and repeats, without those that are excluded."""
    counts: Counter[PlanCell] = Counter()
    for cell, spec in runs:
        counts[cell] += _fold_count(spec)
    lot = {"seed": plan.seeds[0], "repeat": 0}
    return sum(counts[cell.model_copy(update=lot)] for cell in run_matrix.iterate_cells(plan))


def _fold_count(spec: RunSpec) -> int:
    """Runs that a spec becomes: with folds one for each, and their ensemble."""
    count = int(spec.params.get(fold_runs.FOLDS) or 0)
    return count + 1 if count and spec.task == "train" else 1


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _value_text(value: Any) -> str:
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return f"{len(value)} stages"
    text = value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:39]}…"


def wrap(line: str) -> list[str]:
    """A paragraph in lines of at most 80 characters, the later ones indented."""
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    return textwrap.wrap(
        line, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
