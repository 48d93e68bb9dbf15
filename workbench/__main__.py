"""`workbench` and `python -m workbench`: the TUI without arguments, the commands with them.

The TUI does not import the command line, whose parser takes 80 ms to load.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import TracebackType
from typing import NoReturn

from results.text.sanitize import clean, make_writable
from workbench import paths
from workbench.processes import process_state


def main() -> NoReturn:
    """Entry point."""
    process_state.restore_process_state()
    process_state.restart_without(process_state.INTERPRETER_SWITCHES)
    os.umask(0o077)  # files are readable by their user only
    make_writable(sys.stdout, sys.stderr)
    sys.excepthook = print_internal_error
    os.environ.update(paths.module_path(os.environ))  # for child processes
    refuse_control_characters(sys.argv[1:])
    refuse_missing_folder()
    refuse_unset_variables()
    if len(sys.argv) > 1 or "_WORKBENCH_COMPLETE" in os.environ:  # a shell asks for completions
        from workbench.cli import main

        main.main()
    from workbench.tui import app

    raise SystemExit(app.main(paths.log_root()))


def refuse_control_characters(arguments: list[str]) -> None:
    """Exit with status 2 if an argument holds control characters.

    A shell's `*` inserts file names unchanged, and the parser's errors repeat arguments.
    """
    for number, argument in enumerate(arguments, 1):
        if clean(argument) != argument:
            message = (
                f"workbench: argument {number} holds control characters: {clean(argument)}; rename"
            )
            print(message, "the file, or leave them out", file=sys.stderr)  # noqa: T201 - talk
            raise SystemExit(2)


def refuse_missing_folder() -> None:
    """Exit with status 2 if the current folder was removed or may not be entered."""
    try:
        Path.cwd()
    except OSError as error:
        text = f"workbench: the current folder cannot be used ({error.strerror}); change to another"
        print(text, file=sys.stderr)  # noqa: T201 - talk
        raise SystemExit(2) from None


def refuse_unset_variables() -> None:
    """Make the folders in our variables absolute; exit with status 2 if one cannot be resolved."""
    if problems := paths.resolve_variables(os.environ):
        for problem in problems:
            print(f"workbench: {clean(problem)}", file=sys.stderr)  # noqa: T201 - talk
        raise SystemExit(2)


def print_internal_error(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Print the traceback of an internal error, without control characters and secrets."""
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    import traceback

    from results.text.secrets import mask_secrets

    text = clean(mask_secrets("".join(traceback.format_exception(kind, error, trace))))
    sys.stderr.write(f"{text}workbench: this is a fault of ours; please report the above\n")


if __name__ == "__main__":
    main()
