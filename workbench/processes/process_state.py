"""Process state that a command inherits from its shell, scheduler or container.

`restore_process_state` runs once at the start of a command. Closed standard streams, ignored or
blocked signals and variables for other programs otherwise cause failures far from their origin.
"""

from __future__ import annotations

import os
import pwd
import resource
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

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

Handler = Callable[[int, FrameType | None], Any]


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


@contextmanager
def handle_signals(numbers: tuple[signal.Signals, ...], handler: Handler) -> Iterator[None]:
    """Handle signals for the duration of a block.

    A signal that is ignored stays ignored: `nohup` ignores SIGHUP so that the command outlives its
    terminal, and a shell script ignores SIGINT for what it starts with `&`.
    """
    previous = {number: signal.getsignal(number) for number in numbers}
    handled = [number for number in numbers if previous[number] is not signal.SIG_IGN]
    for number in handled:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number in handled:
            signal.signal(number, previous[number] or signal.SIG_DFL)


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
