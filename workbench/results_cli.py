"""`workbench results list`, `show` and `note`: the records that runs left, and what people say.

Beside `cli.py`, which registers these commands: they share no options with runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from workbench.options import AsJson, LogRoot

if TYPE_CHECKING:
    from results.notes import Kind

Run = Annotated[str, typer.Argument(metavar="RUN", help="A run's id, a part of it, or its label.")]


def register(app: typer.Typer) -> None:
    """Add the commands to `workbench results`."""
    app.command("list")(list_)
    app.command("show")(show)
    app.command("note")(note)


def list_(
    log_root: LogRoot = None,
    suite_name: Annotated[str | None, typer.Option("--suite")] = None,
    as_json: AsJson = False,
) -> None:
    """All runs, one line each; the last attempt of each."""
    from workbench import paths, reporting

    reporting.list_records(paths.log_root(log_root), suite_name, as_json=as_json)


def show(
    run_id: Annotated[str, typer.Argument(help="A run's id or a part of it.")],
    log_root: LogRoot = None,
    as_json: AsJson = False,
) -> None:
    """Everything that is known of one run."""
    from workbench import paths, reporting

    reporting.show_record(paths.log_root(log_root), run_id, as_json=as_json)


def note(
    run: Run,
    finding: Annotated[
        str | None, typer.Option(help="What was found; each one is kept, none replaces another.")
    ] = None,
    state: Annotated[
        str | None, typer.Option(help="waiting, running, done or stopped; '' takes it back.")
    ] = None,
    tag: Annotated[str | None, typer.Option(help="A word to find it by; -word takes it back.")] = (
        None
    ),
    log_root: LogRoot = None,
) -> None:
    """Note a finding, a state or a tag on a run; without any, print what is noted."""
    from results.text import clean_line
    from workbench import noting, paths

    root = paths.log_root(log_root)
    key = noting.find(root, run)
    given: dict[Kind, str | None] = {"finding": finding, "state": state, "tag": tag}
    for kind, text in given.items():
        if text is not None:
            noting.add(root, key, kind, text)
    found = noting.standing(root, key)
    typer.echo(clean_line("/".join(key)))
    shown = [("state", found.state), ("tags", ", ".join(sorted(found.tags)))]
    for name, said in [*shown, *(("finding", one) for one in found.findings)]:
        if said:
            typer.echo(f"  {name:<8} {clean_line(said, noting.LONGEST)}")
