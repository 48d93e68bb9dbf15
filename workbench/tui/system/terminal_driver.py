"""Terminal driver: Textual's Linux driver with workarounds for SSH and tmux.

Four faults of Textual 8.2 are worked around:
- A mouse report in the old X10 form past column 95 has a byte over 127, which is not UTF-8: a tmux
  re-attach killed the app. Reports of that form are removed from the bytes, the rest is decoded
  leniently, and the SGR form is enabled again.
- End of file on the terminal (an SSH drop under `nohup`) left the input thread spinning at most of
  a core. It ends the app.
- A write to a dead terminal ended the writer thread, and the next thirty writes blocked the app for
  ever. Writes to a dead terminal are discarded.
- The input thread woke ten times a second, a fifth of the cost of an idle screen. It sleeps until
  there is input.

Keys are given to the app one after the other.
"""

from __future__ import annotations

import os
import re
import select
import selectors
import threading
from codecs import getincrementaldecoder
from collections.abc import Callable, Iterable
from typing import IO, Any, Final, cast

from textual._xterm_parser import XTermParser
from textual.drivers.linux_driver import LinuxDriver
from textual.events import Key, Paste
from textual.message import Message

from results.text.sanitize import degrade_cell
from workbench.tui.system import idle_loop

READ_BYTES: Final = 4096
ESCAPE_SECONDS: Final = 0.12
"""How long a lone Escape waits for the rest of a sequence; Textual's parser decides after 0.1."""

KEY_SECONDS: Final = 0.5
"""How long a key waits for the effect of the one before; after that all that were typed go on."""

_X10_REPORT: Final = re.compile(rb"\x1b\[M[\s\S]{3}")
_X10_BEGUN: Final = re.compile(rb"\x1b\[M[\s\S]{0,2}\Z")


class X10Filter:
    """Removes X10 mouse reports from a stream of bytes, also across chunks."""

    def __init__(self) -> None:
        self._held = b""
        self.removed = 0
        """Number of reports removed so far."""

    def feed(self, data: bytes) -> bytes:
        """The bytes without reports; a report that is not complete yet waits for the next call."""
        data, count = _X10_REPORT.subn(b"", self._held + data)
        self.removed += count
        begun = _X10_BEGUN.search(data)
        cut = begun.start() if begun else len(data)
        self._held = data[cut:]
        return data[:cut]


class LenientFile:
    """The terminal as a file whose writes never fail; `dead` is True after a failed write."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self._plain = "utf" not in str(getattr(file, "encoding", "utf-8")).lower()
        self.dead = False

    def write(self, text: str) -> int:
        """Write; nothing if the terminal is gone. Without UTF-8 each cell stays one cell."""
        if self._plain:
            text = "".join(c if c.isascii() else degrade_cell(c) for c in text)
        return self._try(lambda: self._file.write(text))

    def flush(self) -> None:
        """Flush; nothing if the terminal is gone."""
        self._try(self._file.flush)

    def fileno(self) -> int:
        """The descriptor of the terminal."""
        return self._file.fileno()

    def _try(self, act: Callable[[], int | None]) -> int:
        if self.dead:
            return 0
        try:
            return act() or 0
        except (OSError, ValueError):
            self.dead = True
            return 0


class WakingEvent(threading.Event):
    """An event with a descriptor that can be polled."""

    def __init__(self) -> None:
        super().__init__()
        self._read, self._write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def fileno(self) -> int:
        """Readable while the event is set."""
        return self._read

    def set(self) -> None:
        """Set the event and make the descriptor readable."""
        before = self.is_set()
        super().set()  # first: a woken thread checks it
        if not before:
            os.write(self._write, b"!")

    def clear(self) -> None:
        """Reset the event and drain the descriptor."""
        super().clear()
        while select.select([self._read], [], [], 0)[0]:
            os.read(self._read, 64)


class TerminalDriver(LinuxDriver):
    """Linux driver whose input thread blocks, ends at EOF and filters X10 mouse reports."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._leaving = self.exit_event = WakingEvent()
        self._file = cast("Any", LenientFile(cast("IO[str]", self._file)))

    def run_input_thread(self) -> None:
        """Read keys until the app ends or the terminal is gone."""
        parser = XTermParser(self._debug)
        decoder = getincrementaldecoder("utf-8")("replace")
        old_mouse = X10Filter()
        with selectors.DefaultSelector() as selector:
            selector.register(self.fileno, selectors.EVENT_READ)
            selector.register(self._leaving, selectors.EVENT_READ)
            timeout: float | None = None
            while True:
                ready = [key.fd for key, _ in selector.select(timeout)]
                if self._leaving.is_set():
                    return
                timeout = ESCAPE_SECONDS if ready else None
                if self.fileno in ready:  # otherwise the read would block
                    data = self._read()
                    if not data:
                        self._exit_on_hangup()
                        return
                    count = old_mouse.removed
                    text = decoder.decode(old_mouse.feed(data))
                    if old_mouse.removed > count:
                        self._enable_mouse_support()
                    if text:  # an empty feed would tell the parser that the input ended
                        self._hand_on(parser.feed(text))
                self._hand_on(parser.tick())

    def _hand_on(self, typed: Iterable[Message]) -> None:
        """Give events to the app, a key when the one before it has had its effect.

        Textual hands a key to what has the focus at that moment: the `3` of `Enter 3` typed ahead
        would go to the list instead of the editor that Enter opens.
        """
        is_quick = True
        for event in typed:
            self.process_message(event)
            if is_quick and isinstance(event, Key | Paste):
                is_quick = idle_loop.settle(self._loop, KEY_SECONDS, self._leaving)

    def _read(self) -> bytes:
        try:
            return os.read(self.fileno, READ_BYTES)
        except OSError:  # EIO: the other side of the pseudo-terminal is gone
            return b""

    def _exit_on_hangup(self) -> None:
        self._loop.call_soon_threadsafe(self._app.exit)
