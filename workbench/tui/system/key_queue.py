"""Keys in their order: the next one is handed on when what the last one set off has the focus.

Textual hands a key to the widget that has the focus at that moment, and what a key opens gets the
focus some messages later: of `Enter`, `3`, `2` typed ahead the digits would go to the list instead
of the editor that Enter opens.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Final

from textual import events
from textual.app import App, ScreenStackError

MAX_SECONDS: Final = 0.5
"""After that the next key is handed on in any case."""
URGENT: Final = frozenset(("ctrl+c", "ctrl+q"))
"""Keys that never wait."""

TypedEvent = events.Key | events.Paste


class KeyQueue:
    """Holds keys and pastes back while an earlier one is at work."""

    def __init__(self, app: App[Any]) -> None:
        self._app = app
        self._waiting: deque[TypedEvent] = deque()
        self._next: TypedEvent | None = None
        """Held back before, and now posted again."""
        self._task: asyncio.Task[None] | None = None
        """Waits for what the last key set off."""

    def admit(self, event: TypedEvent) -> bool:
        """Whether an event is handed on now; else it is posted again in its turn."""
        if event is self._next:
            self._next = None
        elif self._task is not None and not _is_urgent(event):
            self._waiting.append(event)
            return False
        return True

    def release_after(self, event: TypedEvent) -> None:
        """Let the next event come when what this one set off is done."""
        if not _is_urgent(event):
            self._task = asyncio.create_task(self._release_next())

    async def _release_next(self) -> None:
        try:
            async with asyncio.timeout(MAX_SECONDS):
                await self._settle()
        except (TimeoutError, ScreenStackError):  # a widget that is blocked or gone; the app ends
            pass
        finally:
            self._task = self._task if self._waiting else None
            if self._waiting:
                self._next = self._waiting.popleft()
                self._app.post_message(self._next)

    async def _settle(self) -> None:
        """Go through the queues from the focus up to the app, until it stays for two passes: what a
        widget posts comes behind the first one."""
        steady = 0
        while steady < 2:
            focus = self._app.screen, self._app.focused
            for node in (self._app.focused or self._app.screen).ancestors_with_self:
                passed = asyncio.Event()
                if node.call_later(passed.set):
                    await passed.wait()
            steady = steady + 1 if focus == (self._app.screen, self._app.focused) else 0


def _is_urgent(event: TypedEvent) -> bool:
    return isinstance(event, events.Key) and event.key in URGENT
