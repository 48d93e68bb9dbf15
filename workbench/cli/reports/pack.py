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
    name: Annotated[str, typer.Argument(metavar="SUITE[/RUN]", help="A suite or one of its runs.")],
    out: PackFile = None,
    checkpoints: WithCheckpoints = False,
    log_root: LogRoot = None,
) -> None:
    """Write a suite, its records and notes into one file, without secrets, home and host names."""
    from results.text import formats
    from workbench import paths
    from workbench.reporting import suite_pack
    from workbench.suites import suite

    suite_name, _, run_id = name.partition("/")
    folder = suite.find_suite(paths.log_root(log_root), suite_name)
    target = (out or Path(f"{folder.name}.zip")).absolute()
    runs = frozenset({run_id}) if run_id else frozenset[str]()
    size = suite_pack.pack_suite(folder, target, runs, checkpoints=checkpoints)
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
