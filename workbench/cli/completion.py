"""Shell completion of subsets, models, presets, engines, settings, suites, runs and filters.

The shell starts a process at each Tab, so nothing heavy is loaded; what cannot be read completes
to nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import wraps
from pathlib import Path
from typing import TypeVar

import typer

MAX_RUNS = 200
"""The newest runs are offered."""

Names = TypeVar("Names", bound=Callable[..., list[str]])


def _quiet(complete: Names) -> Names:
    """The function, with nothing to offer where it fails: a traceback would land in the prompt."""

    @wraps(complete)
    def complete_or_nothing(*args: object, **kwargs: object) -> list[str]:
        try:
            return complete(*args, **kwargs)
        except Exception:
            return []

    return complete_or_nothing  # type: ignore[return-value]


def _starting(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in dict.fromkeys(names) if name.startswith(incomplete)]


@_quiet
def complete_subsets(incomplete: str) -> list[str]:
    """Subsets of the catalog."""
    from datasets_mm import catalog

    return _starting(catalog.names(), incomplete)


@_quiet
def complete_models(incomplete: str) -> list[str]:
    """Models of the catalog."""
    from engines import model_catalog

    return _starting(model_catalog.names(), incomplete)


@_quiet
def complete_presets(incomplete: str) -> list[str]:
    """Presets, shipped and the user's."""
    from workbench.planning import plan

    return _starting(plan.preset_files(), incomplete)


@_quiet
def complete_engines(incomplete: str) -> list[str]:
    """Engines."""
    from engines import catalog

    return _starting(catalog.names(), incomplete)


@_quiet
def complete_settings(context: typer.Context, incomplete: str) -> list[str]:
    """`KEY=` of the settings of the given engines, else of all."""
    from engines import catalog

    engines = context.params.get("engine") or [n for n in catalog.names() if n != "probe"]
    fields = [field for name in engines for field in catalog.load(name).Params.model_fields]
    return [f"{field}=" for field in _starting(dict.fromkeys(fields), incomplete)]


@_quiet
def complete_suites(context: typer.Context, incomplete: str) -> list[str]:
    """Suites of the log root, newest first."""
    from workbench.suites import suite

    return [f.name for f in suite.list_suites(_log_root(context)) if incomplete in f.name]


@_quiet
def complete_runs(context: typer.Context, incomplete: str) -> list[str]:
    """`suite/run` of the newest runs, and labels."""
    from workbench import paths
    from workbench.reporting import run_listing

    runs, _ = run_listing.read_runs(_log_root(context), paths.cache_root())
    newest = [run.summary for run in runs[: -MAX_RUNS - 1 : -1]]
    names = [*(s.label for s in newest if s.label), *("/".join(s.key) for s in newest)]
    return [name for name in dict.fromkeys(names) if incomplete in name]


@_quiet
def complete_suites_and_runs(context: typer.Context, incomplete: str) -> list[str]:
    """Suites, then runs and labels."""
    return [*complete_suites(context, incomplete), *complete_runs(context, incomplete)]


@_quiet
def complete_report_kinds(incomplete: str) -> list[str]:
    """Kinds of reports."""
    from results.comparison.document_view import KINDS

    return _starting(KINDS, incomplete)


@_quiet
def complete_suite_runs(context: typer.Context, incomplete: str) -> list[str]:
    """Ids of the runs of the given suite, else of the one at work."""
    from workbench.suites import suite, warden_file

    root = _log_root(context)
    folder = warden_file.choose_suite_at_work(root, context.params.get("suite"))
    names = suite.list_run_names(folder or suite.find_suite(root, None))
    return [name for name in sorted(names) if incomplete in name]


@_quiet
def complete_views(incomplete: str) -> list[str]:
    """Saved views."""
    from results.listing.views import read_views
    from workbench import paths

    return _starting(read_views(paths.config_root() / "views.json"), incomplete)


@_quiet
def complete_filters(incomplete: str) -> list[str]:
    """Fields of the filter language with their sign."""
    from results.listing import run_filter

    texts = [f"{name}:" for name in (*run_filter.TEXT_FIELDS, *run_filter.TIMES)]
    ends = [f"end:{word}" for word in run_filter.ENDS]
    return _starting([*texts, *ends, "in:trash"], incomplete)


@_quiet
def complete_columns(context: typer.Context, incomplete: str) -> list[str]:
    """Columns of lists: of every run, and settings and metrics that runs have."""
    from results.listing import run_filter, values
    from workbench import paths
    from workbench.reporting import run_listing

    runs, _ = run_listing.read_runs(_log_root(context), paths.cache_root())
    names = run_filter.collect_names(run.summary for run in runs)
    return _starting([*values.list_keys(), *names], incomplete)


def _log_root(context: typer.Context) -> Path:
    from workbench import paths

    return paths.log_root(context.params.get("log_root"))
