"""`workbench serve`: the screen in a browser."""

from __future__ import annotations

import os
import secrets
import shlex
import sys
from importlib.util import find_spec
from typing import Annotated, Final

import typer

from workbench.cli.options import LogRoot
from workbench.exit_codes import ExitCode

LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")
TOKEN_BYTES: Final = 24


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("serve")(serve)


def serve(
    host: Annotated[
        str, typer.Option(help="Address to listen on; others than this machine's own see it too.")
    ] = LOOPBACK[0],
    port: Annotated[int, typer.Option(min=1, max=65_535)] = 8000,
    log_root: LogRoot = None,
) -> None:
    """Show the screen in a browser, at the address with a token that is printed."""
    from workbench import paths

    if find_spec("textual_serve") is None:
        typer.echo(
            "workbench: serve needs the package textual-serve: pip install 'workbench-mm[serve]'",
            err=True,
        )
        raise typer.Exit(ExitCode.USAGE)
    from workbench.cli import web_server

    token = secrets.token_urlsafe(TOKEN_BYTES)
    os.environ["WORKBENCH_LOG_ROOT"] = str(paths.log_root(log_root).absolute())
    command = shlex.join([sys.executable, "-m", "workbench"])

    def tell_address() -> None:
        shown = f"[{host}]" if ":" in host else host
        typer.echo(f"http://{shown}:{port}/?token={token}")
        typer.echo("Ctrl+C ends it; suites go on.", err=True)
        if host not in LOOPBACK:
            typer.echo(
                "workbench: the connection is not encrypted: whoever reads the network can steer "
                "suites. `ssh -L 8000:localhost:8000 HOST` needs no --host.",
                err=True,
            )

    try:
        web_server.run_server(command, token, host, port, tell_address)
    except OSError as error:
        typer.echo(
            f"workbench: {host}:{port} cannot be used ({error.strerror}); give another --port",
            err=True,
        )
        raise typer.Exit(ExitCode.USAGE) from None
