"""Lists of models, presets and subsets on the command line."""

from __future__ import annotations

import json
from pathlib import Path

from results.text.sanitize import clean, clean_line
from workbench import paths


def print_models(log_root: Path, *, as_json: bool) -> None:
    """Print models and trained runs, those that are ready first: engines, title, what is missing.

    As JSON in the order of their names.
    """
    from engines import model_catalog
    from workbench.planning import trained_runs

    rows: list[tuple[str, str, str, str | None]] = []
    for name in model_catalog.names():
        entry = model_catalog.load(name)
        problem = model_catalog.find_problem(entry)
        rows.append((name, "/".join(entry.engines), entry.title, problem))
        if as_json:
            _print_line(json.dumps({**entry.model_dump(mode="json"), "problem": problem}))
    for run in trained_runs.list_trained_runs(log_root):
        problem = run.problem or None
        rows.append((run.name, run.engine, run.summary, problem))
        if as_json:
            row = {"name": run.name, "engines": [run.engine], "title": run.summary}
            _print_line(json.dumps({**row, "base_model": run.base_model, "problem": problem}))
    if not as_json:
        _print_model_table(rows)


def _print_model_table(rows: list[tuple[str, str, str, str | None]]) -> None:
    """A line for each model that is ready; for the others a second one, why it is not."""
    names = max((len(row[0]) for row in rows), default=0)
    for name, engines, title, problem in sorted(rows, key=lambda row: row[3] is not None):
        state = "missing" if problem else "ready"
        _print_line(f"{clean_line(name):<{names}}  {engines:<10}  {state:<7}  {clean_line(title)}")
        if problem:
            reason = problem.removeprefix(f"model '{name}': ")
            _print_line(f"{'':<{names}}  {'':<10}  {clean_line(reason)}")


def print_presets() -> None:
    """Print each preset with what is expected of it, and published steps that have none."""
    from results.records import published
    from workbench.memory_estimate import expectations
    from workbench.planning import plan

    for name in plan.preset_files():
        preset = plan.load_preset(name)
        _print_line(clean_line(f"{name:<24} {preset.about}"))
        expected = expectations.describe_expectations(preset, paths.cache_root(), any_rows=True)
        if expected:
            _print_line(f"{'':<24} {clean_line(expected)}")
    for sentence in published.describe_steps_without_recipe():
        _print_line(f"{'-':<24} {sentence}")


def print_subsets(*, as_json: bool) -> None:
    """Print one line per subset: rows, passages, build state, and a difference from the recipe."""
    from datasets_mm import catalog

    cache = paths.cache_root()
    cells = max(map(len, catalog.names()))
    for name in catalog.names():
        row = catalog.summary(name, cache)
        if as_json:
            _print_line(json.dumps({"name": name, "title": row.title, "rows": row.rows,
                             "expected_rows": row.expected_rows,
                             "corpus_rows": row.corpus_rows, "built": row.built}))  # fmt: skip
            continue
        rows = _format_count(row.rows if row.built else row.expected_rows)
        built = "built" if row.built else "expected" if row.expected_rows else "not built"
        corpus = (
            f"{_format_count(row.corpus_rows):>9} passages" if row.corpus_rows != 0 else f"{'':>18}"
        )
        off = ""
        if row.built and row.expected_rows not in {None, row.rows}:
            off = f" (expected: {row.expected_rows:,} rows)"
        title = clean_line(row.title)
        _print_line(f"{name:<{cells}} {rows:>9} rows {corpus}  {built:<9}  {title}{off}")


def _format_count(value: int | None) -> str:
    return "?" if value is None else f"{value:,}"


def _print_line(line: str) -> None:
    print(clean(line))
