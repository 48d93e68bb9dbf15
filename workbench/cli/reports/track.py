"""`workbench results track`: ended runs for experiment trackers, as local files."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Annotated, Final

import typer

from workbench.cli.options import FOLDER, LogRoot
from workbench.exit_codes import ExitCode

TRACKERS: Final = {
    "tensorboard": "tensorboardX", "wandb": "wandb", "mlflow": "mlflow", "trackio": "trackio",
    "swanlab": "swanlab",
}  # fmt: skip
"""Module of `workbench.trackers` -> the library it writes with."""


def parse_tracker(text: str) -> str:
    """A tracker's name.

    Raises:
        typer.BadParameter: there is none of that name.
    """
    if text not in TRACKERS:
        raise typer.BadParameter(f"'{text}' is not known; use {', '.join(TRACKERS)}")
    return text


def register(app: typer.Typer) -> None:
    """Add the command to `workbench results`."""
    app.command("track")(track_runs)


def track_runs(
    names: Annotated[list[str], typer.Argument(metavar="RUN...", help="Id, suite/id or label.")],
    tracker: Annotated[
        str,
        typer.Option("--to", parser=parse_tracker, metavar="TRACKER", help=", ".join(TRACKERS)),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the tracker's files.", **FOLDER)] = Path(
        "tracked"
    ),
    log_root: LogRoot = None,
) -> None:
    """Write completed runs as a tracker's local files; written again, a run replaces itself."""
    from workbench import paths
    from workbench.reporting import run_groups
    from workbench.trackers.run_log import build_log

    root = paths.log_root(log_root)
    records = [record for group in run_groups.find_groups(root, names) for record in group.records]
    module = importlib.import_module(f"workbench.trackers.{tracker}")
    try:
        for record in records:
            typer.echo(module.write(build_log(root, record), out.absolute()))
    except ModuleNotFoundError as missing:
        if missing.name != TRACKERS[tracker]:
            raise
        typer.echo(
            f"workbench: {tracker} needs a package; pip install {TRACKERS[tracker]}", err=True
        )
        raise typer.Exit(ExitCode.USAGE) from None
