"""`workbench` and `python -m workbench`: the screen without words, the commands with them.

Apart from the commands because the screen should not wait 80 ms for a parser that it never uses.
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
    process_state.restore()
    process_state.restart_without(process_state.INTERPRETER_SWITCHES)
    os.umask(0o077)  # what this tool writes is for its user
    make_writable(sys.stdout, sys.stderr)
    sys.excepthook = tell_fault
    os.environ.update(paths.module_path(os.environ))  # for all that is started from here
    refuse_control_characters(sys.argv[1:])
    refuse_missing_folder()
    refuse_unset_variables()
    if len(sys.argv) > 1:
        from workbench.cli import main

        main.main()
    from workbench.tui import app

    raise SystemExit(app.main(paths.log_root()))


def refuse_control_characters(words: list[str]) -> None:
    """A shell's `*` puts file names here as they are, and a parser's errors repeat them."""
    for number, word in enumerate(words, 1):
        if clean(word) != word:
            said = f"workbench: argument {number} holds control characters: {clean(word)}; rename"
            print(said, "the file, or leave them out", file=sys.stderr)  # noqa: T201 - talk
            raise SystemExit(2)


def refuse_missing_folder() -> None:
    """A current folder that was removed, or that may not be entered, has no path to resolve."""
    try:
        Path.cwd()
    except OSError as error:
        text = f"workbench: the current folder cannot be used ({error.strerror}); change to another"
        print(text, file=sys.stderr)  # noqa: T201 - talk
        raise SystemExit(2) from None


def refuse_unset_variables() -> None:
    """Absolute folders in our variables, so that a `resume` from elsewhere finds the same ones."""
    if problems := paths.settle_variables(os.environ):
        for problem in problems:
            print(f"workbench: {clean(problem)}", file=sys.stderr)  # noqa: T201 - talk
        raise SystemExit(2)


def tell_fault(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """A fault of ours: the traceback, cleaned, for its message may be anybody's text."""
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    import traceback

    from results.text.secrets import mask

    told = clean(mask("".join(traceback.format_exception(kind, error, trace))))
    sys.stderr.write(f"{told}workbench: this is a fault of ours; please report the above\n")


if __name__ == "__main__":
    main()
