"""Process state that a command inherits from its shell, scheduler or container.

`restore` runs once, before anything else: closed standard streams, ignored or blocked signals and
variables for other programs otherwise fail far from their cause.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

STANDARD_STREAMS: Final = 3

UNBLOCKED: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD, signal.SIGWINCH)
"""Signals that the commands wait for; a parent may have blocked them for all its children."""

Handler = Callable[[int, FrameType | None], Any]


def restore() -> None:
    """Open missing standard streams, unblock signals, and let children be waited for.

    A pipe made while descriptor 0 is closed would become standard input. With SIGCHLD ignored the
    kernel reaps children itself, and their exit status is lost.
    """
    open_standard_streams()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, UNBLOCKED)
    if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


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
