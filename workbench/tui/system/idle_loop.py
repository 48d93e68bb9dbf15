"""Event loop that says when it is idle: threads that read long files then leave it the interpreter,
and a key is handed to it when the key before has had its effect.

Python runs one thread at a time, and the loop, which waits anew after each of the some fifty
callbacks of a key, gets its turn back from a thread that decodes only after
`sys.getswitchinterval`, which the app makes shorter.
"""

from __future__ import annotations

import asyncio
import gc
import selectors
import threading
import time
from collections import deque
from functools import cache
from typing import Final

SWITCH_SECONDS: Final = 0.001
"""After which a thread that computes gives its turn away; Python's 0.005 is felt at a key."""
LONGEST_WAIT: Final = 0.25
"""Seconds after which a reader goes on although the loop is at work."""
STOP_SECONDS: Final = 0.02
"""From an order to stop until a thread obeys that waits for the loop."""

_IDLE: Final = threading.Event()
_IDLE.set()
_SETTLED: Final[deque[threading.Event]] = deque()
"""Set, and removed, as soon as the loop is idle."""


class IdleSelector(selectors.DefaultSelector):
    """Selector of a loop; while it waits the loop is idle."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """See `selectors.BaseSelector.select`."""
        if timeout is not None and timeout <= 0:  # callbacks wait for their turn
            return super().select(timeout)
        _IDLE.set()
        while _SETTLED:
            _SETTLED.popleft().set()
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


@cache
def freeze_objects() -> None:
    """Leave what lives now, once, out of the search for garbage.

    A thread that decodes makes so many objects that all others, most of them of libraries, were
    searched about every two seconds, and nothing else ran for 90 ms.
    """
    gc.freeze()


def settle(loop: asyncio.AbstractEventLoop, seconds: float, stopped: threading.Event) -> bool:
    """Wait until a loop of `make_loop` has done all that it was given before, and what followed
    from it; from another thread. False: not within `seconds`, or `stopped` was set."""
    settled, end = threading.Event(), time.monotonic() + seconds
    loop.call_soon_threadsafe(_SETTLED.append, settled)
    while not settled.wait(STOP_SECONDS):
        if stopped.is_set() or time.monotonic() > end:
            return False
    return True
