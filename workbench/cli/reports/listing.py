"""`workbench results list` and `views`: runs by filter, page by page, and saved views of them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from results.text.sanitize import dump_json
from workbench.cli import completion
from workbench.cli.options import AsJson, LogRoot, fail, print_message

if TYPE_CHECKING:
    from results.listing.run_filter import ListedRun
    from results.listing.views import ResultView

Terms = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[FILTER...]",
        help="'since:7d end:ok score>.3 model:clip lr<1e-4 -label:old'; see docs/tui.md.",
        autocompletion=completion.complete_filters,
    ),
]
View = Annotated[
    str | None,
    typer.Option("--view", help="A saved view.", autocompletion=completion.complete_views),
]
Columns = Annotated[
    list[str] | None,
    typer.Option(
        "--column", metavar="KEY", help="These instead: model, wall, lr, recall@1@emoji_val, …",
        autocompletion=completion.complete_columns,
    ),
]  # fmt: skip
SortKey = Annotated[
    str | None,
    typer.Option(
        "--sort", metavar="KEY", help="Sort by it; the highest last.",
        autocompletion=completion.complete_columns,
    ),
]  # fmt: skip
Metric = Annotated[
    str | None,
    typer.Option("--metric", help="What `score` means: recall@1@emoji_val; default: each run's."),
]
Falling = Annotated[bool, typer.Option("--falling", help="With --sort: the highest first.")]
Limit = Annotated[int | None, typer.Option(min=1, help="A page: so many of the newest runs.")]
Page = Annotated[int, typer.Option(min=1, help="With --limit: 1 is the last one, with the newest.")]


def register(app: typer.Typer) -> None:
    """Add `list` to `workbench results`."""
    app.command("list")(list_runs)


def register_views(app: typer.Typer) -> None:
    """Add the commands to `workbench views`."""
    app.callback(invoke_without_command=True)(list_views)
    app.command("save")(save_view)
    app.command("remove")(remove_view)


def list_runs(  # noqa: PLR0913, PLR0917 - one parameter for each option
    terms: Terms = None,
    view_name: View = None,
    suite_name: Annotated[str | None, typer.Option("--suite")] = None,
    metric: Metric = None,
    columns: Columns = None,
    sort: SortKey = None,
    falling: Falling = False,
    limit: Limit = None,
    page: Page = 1,
    log_root: LogRoot = None,
    as_json: AsJson = False,
) -> None:
    """Runs, one line each, oldest first; the last attempt of each."""
    from workbench import paths
    from workbench.reporting import run_listing

    view = _find_view(view_name) if view_name else None
    view = run_listing.extend_view(
        view, list(terms or ()), suite=suite_name, metric=metric, columns=columns, sort=sort,
        descending=falling if sort else None,
    )  # fmt: skip
    root = paths.log_root(log_root)
    runs, trouble = run_listing.read_runs(root, paths.cache_root())
    try:
        chosen = run_listing.select_view(runs, view)
    except ValueError as error:
        fail(str(error))
    if trouble:
        print_message(trouble)
    if limit is not None:
        chosen = run_listing.cut_page(chosen, limit, page)
    _print_runs(root, chosen, view, as_json=as_json)
    if not chosen and not as_json:
        print_message(f"no run of {len(runs):,} fits" if runs else f"no records in {root}")


def _print_runs(root: Path, runs: Sequence[ListedRun], view: ResultView, *, as_json: bool) -> None:
    from results.listing import values
    from results.text.table import render_terminal
    from workbench.reporting import run_listing

    if view.columns and as_json:
        for run in runs:
            row: dict[str, Any] = {"suite": run.summary.suite, "run_id": run.summary.run_id}
            row |= {key: values.read_value(run, key, view.metric) for key in view.columns}
            _print_line(dump_json(row))
    elif view.columns:
        sys.stdout.write(render_terminal(values.make_table(runs, view.columns, view.metric)))
    elif as_json:
        for line in run_listing.read_record_lines(root, runs):
            _print_line(line)
    else:
        for run in runs:
            _print_line(run_listing.describe_run(run, view.metric))


def list_views(context: typer.Context, as_json: AsJson = False) -> None:
    """List the saved views of Results; `results list --view NAME` shows one."""
    if context.invoked_subcommand is not None:
        return
    from results.text.sanitize import clean_line

    views = _read_views()
    for name, view in views.items():
        if as_json:
            _print_line(dump_json({"name": name, **view.as_table()}))
        else:
            facts = (
                f"{key}: {','.join(value) if isinstance(value, tuple) else value}"
                for key, value in view.as_table().items()
            )
            _print_line(clean_line(f"{name:<20} {'  '.join(facts)}"))
    if not views and not as_json:
        print_message(
            "no views yet; `workbench views save NAME FILTER`, or v on the screen Results"
        )


def save_view(
    name: Annotated[str, typer.Argument(help="Its name.")],
    terms: Terms = None,
    metric: Metric = None,
    columns: Columns = None,
    sort: SortKey = None,
    falling: Falling = False,
) -> None:
    """Save a view for `results list --view NAME` and the screen; one of that name is replaced."""
    from results.listing import run_filter
    from results.listing.views import write_views
    from workbench.reporting import run_listing

    text = " ".join(terms or ())
    try:
        run_filter.parse_filter(text, run_filter.AnyName())
    except run_filter.FilterError as error:
        fail(str(error))
    view = run_listing.extend_view(
        None, [text] if text else [], metric=metric, columns=columns, sort=sort,
        descending=falling if sort else None,
    )  # fmt: skip
    write_views(_views_file(), {**_read_views(), name: view})


def remove_view(
    name: Annotated[
        str, typer.Argument(help="Its name.", autocompletion=completion.complete_views)
    ],
) -> None:
    """Remove a saved view."""
    from results.listing.views import write_views

    _find_view(name)
    write_views(_views_file(), {n: view for n, view in _read_views().items() if n != name})


def _views_file() -> Path:
    from workbench import paths

    return paths.config_root() / "views.json"


def _read_views() -> dict[str, ResultView]:
    from results.listing.views import read_views

    try:
        return read_views(_views_file())
    except ValueError as error:
        fail(str(error))


def _find_view(name: str) -> ResultView:
    import difflib

    views = _read_views()
    if name not in views:
        close = difflib.get_close_matches(name, views, n=1)
        guess = f"; did you mean '{close[0]}'?" if close else "; `workbench views` lists them"
        fail(f"no view '{name}'{guess}")
    return replace(views[name])


def _print_line(text: str) -> None:
    """In the terminal's encoding, as stdout is set up; click would write UTF-8 to an ASCII one."""
    sys.stdout.write(f"{text}\n")
