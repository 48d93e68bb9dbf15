"""`workbench pack` and `unpack`: a suite or a run as one file for a colleague."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from workbench.cli.options import LogRoot

PackFile = Annotated[
    Path | None, typer.Option("--out", help="The file; default: SUITE.zip in this folder.")
]
WithCheckpoints = Annotated[
    bool, typer.Option("--checkpoints", help="With checkpoints and trained models.")
]


def register(app: typer.Typer) -> None:
    """Add the commands to `workbench`."""
    app.command("pack")(pack)
    app.command("unpack")(unpack)


def pack(
    name: Annotated[
        str,
        typer.Argument(
            metavar="SUITE|RUN",
            help="A suite by a part of its name, or a run: id, label, suite/run.",
        ),
    ],
    out: PackFile = None,
    checkpoints: WithCheckpoints = False,
    log_root: LogRoot = None,
) -> None:
    """Write a suite, its records and notes into one file, without secrets, home and host names."""
    from results.text import formats
    from workbench import paths
    from workbench.reporting import selection, suite_pack, suite_view
    from workbench.suites.suite import SuiteError

    root = selection.find_log_root(paths.log_root(log_root), [name])
    (chosen,) = selection.select_by_names(root, [name], suite_view.read_records(root))
    if chosen.folder is None:
        raise SuiteError(
            f"{chosen.name} has no folder here: it was imported, or its folder was deleted; only "
            "runs of this log root can be packed"
        )
    target = (out or Path(f"{chosen.name}.zip")).absolute()
    runs = chosen.runs or frozenset[str]()
    size = suite_pack.pack_suite(chosen.folder, target, runs, checkpoints=checkpoints)
    typer.echo(f"{target}: {formats.file_size(size)}")


def unpack(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `workbench pack` wrote.")],
    log_root: LogRoot = None,
) -> None:
    """Put a packed suite under the log root: list, report, compare and run it as one's own."""
    from workbench import paths
    from workbench.reporting import suite_pack

    folder = suite_pack.unpack_suite(file, paths.log_root(log_root))
    typer.echo(f"{folder}; again here: workbench run {folder / 'plan.toml'}")
