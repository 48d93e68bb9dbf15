"""Event loop that says when it is idle: threads that read long files then leave it the interpreter.

Python runs one thread at a time, and the loop, which waits anew after each of the some fifty
callbacks of a key, gets its turn back from a thread that decodes only after
`sys.getswitchinterval`, 5 ms.
"""

from __future__ import annotations

import asyncio
import selectors
import threading
from typing import Final

LONGEST_WAIT: Final = 0.25
"""Seconds after which a reader goes on although the loop is at work."""

_IDLE: Final = threading.Event()
_IDLE.set()


class IdleSelector(selectors.DefaultSelector):
    """Selector of a loop; while it waits the loop is idle."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """See `selectors.BaseSelector.select`."""
        if timeout is not None and timeout <= 0:  # callbacks wait for their turn
            return super().select(timeout)
        _IDLE.set()
        try:
            return super().select(timeout)
        finally:
            _IDLE.clear()

    def close(self) -> None:
        """Close it; without its loop nothing is at work."""
        super().close()
        _IDLE.set()


def make_loop() -> asyncio.AbstractEventLoop:
    """An event loop for `give_way`."""
    return asyncio.SelectorEventLoop(IdleSelector())


def give_way() -> None:
    """Wait until the loop is idle; from a thread that reads, between two pieces of work."""
    _IDLE.wait(LONGEST_WAIT)
