"""`workbench` and `python -m workbench`: the TUI without arguments, the commands with them.

The TUI does not import the command line, whose parser takes 80 ms to load. First it restores what a
process inherits from its shell, scheduler or container: closed standard streams, ignored or blocked
signals and variables for other programs otherwise cause failures far from their origin.
"""

from __future__ import annotations

import os
import pwd
import resource
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, NoReturn

from results.text.sanitize import clean, make_writable
from workbench import paths

STANDARD_STREAMS: Final = 3

DESCRIPTORS: Final = 4096

UNBLOCKED: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD, signal.SIGWINCH)
"""Signals that the commands need; a parent may have blocked them for its children."""

INTERPRETER_SWITCHES: Final = (
    "PYTHONINSPECT", "PYTHONWARNINGS", "PYTHONDEVMODE", "PYTHONTRACEMALLOC", "PYTHONMALLOC",
    "PYTHONMALLOCSTATS", "PYTHONASYNCIODEBUG", "PYTHONVERBOSE", "PYTHONPROFILEIMPORTTIME",
    "PYTHONOPTIMIZE", "PYTHONDEBUG", "PYTHONDUMPREFS", "PYTHONPERFSUPPORT", "PYTHONCASEOK",
)  # fmt: skip
"""Debugging aids of other programs: they change exit codes, memory and step times."""


def main() -> NoReturn:
    """Entry point."""
    restore_process_state()
    restart_without(INTERPRETER_SWITCHES)
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


def restore_process_state() -> None:
    """Open closed standard streams, unblock signals, restore SIGCHLD, raise the file limit.

    A pipe made while descriptor 0 is closed would become standard input. With SIGCHLD ignored the
    kernel reaps children itself, and their exit status is lost.
    """
    open_standard_streams()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, UNBLOCKED)
    if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    name_user()
    raise_descriptor_limit()


def raise_descriptor_limit() -> None:
    """Raise the soft limit of open files to the hard one, at most to `DESCRIPTORS`.

    Children inherit it: loaders, caches and the warden's samples of processes need hundreds.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    target = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < target:
        resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))


def restart_without(names: Sequence[str]) -> None:
    """Re-execute this process without these variables, if one of them is set.

    The interpreter reads them before any line of this program. Process id and streams stay;
    children do not inherit the variables either.
    """
    present = [name for name in names if os.environ.pop(name, None)]
    if present:
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - ourselves


def name_user() -> None:
    """Set USER where the user has no entry in the passwd database, as in many containers.

    torch asks for the user's name when it is imported, and fails without one.
    """
    if any(os.environ.get(name) for name in ("LOGNAME", "USER", "LNAME", "USERNAME")):
        return
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        os.environ["USER"] = f"uid{os.getuid()}"


def open_standard_streams() -> None:
    """Open `/dev/null` as each of the descriptors 0, 1 and 2 that is closed."""
    for descriptor in range(STANDARD_STREAMS):
        try:
            os.fstat(descriptor)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)  # the lowest free one: `descriptor`
            os.set_inheritable(null, True)
    for name, descriptor, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        if getattr(sys, name) is None:
            stream = os.fdopen(descriptor, mode, encoding="utf-8", closefd=False)
            setattr(sys, name, stream)


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
