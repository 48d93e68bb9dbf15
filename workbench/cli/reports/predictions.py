"""`workbench results predictions`: single items of a run, those that it did worst first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from results.text.sanitize import dump_json
from workbench.cli import completion
from workbench.cli.options import AsJson, AsMarkdown, Language, LogRoot

if TYPE_CHECKING:
    from results.comparison.predictions import PredictionList

Item = Annotated[
    str, typer.Option("--find", metavar="TEXT", help="Only items in which it occurs, in any case.")
]
ItemMetric = Annotated[
    str, typer.Option("--metric", help="recall@1@emoji_val; default: the main one.")
]
ItemLimit = Annotated[int, typer.Option("--limit", min=1, help="Items at most.")]


def register(app: typer.Typer) -> None:
    """Add the command to `workbench results`."""
    app.command("predictions")(list_predictions)


def list_predictions(  # noqa: PLR0913, PLR0917 - one parameter for each option
    run_id: Annotated[
        str,
        typer.Argument(
            metavar="RUN",
            help="A run's id or a part of it.",
            autocompletion=completion.complete_runs,
        ),
    ],
    metric: ItemMetric = "",
    text: Item = "",
    limit: ItemLimit = 20,
    log_root: LogRoot = None,
    lang: Language = "en",
    markdown: AsMarkdown = False,
    as_json: AsJson = False,
) -> None:
    """Queries, media or questions of a run: score, what it answered, what was right."""
    from results.comparison import predictions
    from results.tables.predictions import predictions_table
    from results.text.table import render_markdown, render_terminal
    from workbench import paths
    from workbench.reporting import suite_view

    root = paths.log_root(log_root)
    record = suite_view.find_record(suite_view.read_records(root), run_id, root)
    listed = predictions.list_predictions(record, root, metric, text, limit)
    if as_json:
        _print_json(listed)
        return
    render = render_markdown if markdown else render_terminal
    typer.echo(render(predictions_table(listed, lang)), nl=False)


def _print_json(listed: PredictionList | None) -> None:
    """A line about the list, then one an item; nothing where there is none."""
    if listed is None:
        return
    typer.echo(dump_json(listed.as_row()))
    for item in listed.predictions:
        typer.echo(dump_json(item._asdict()))
