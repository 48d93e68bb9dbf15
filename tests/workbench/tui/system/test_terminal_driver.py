"""The terminal driver's filters: bytes in, bytes out."""

from __future__ import annotations

import io
import os
import select
import threading

from hypothesis import given
from hypothesis import strategies as st

from workbench.tui.system.terminal_driver import LenientFile, WakingEvent, X10Filter


def report(x: int, y: int, button: int = 0) -> bytes:
    """An X10 mouse report: one byte each, 32 + value, over 127 from column 96 on."""
    return b"\x1b[M" + bytes((32 + button, 33 + x, 33 + y))


def test_reports_are_taken_out_and_counted() -> None:
    x10 = X10Filter()
    assert x10.feed(b"a" + report(150, 5) + b"b" + report(1, 1)) == b"ab"
    assert x10.removed == 2


def test_a_report_may_come_in_pieces() -> None:
    whole = b"x" + report(200, 20) + b"y"
    for cut in range(len(whole) + 1):
        x10 = X10Filter()
        out = x10.feed(whole[:cut]) + x10.feed(whole[cut:])
        # A cut inside `ESC [ M` lets the beginning pass: Escape alone must not wait.
        if not 2 <= cut <= 3:
            assert out == b"xy", cut


@given(st.lists(st.binary(max_size=8), max_size=12))
def test_other_bytes_pass_untouched(chunks: list[bytes]) -> None:
    clean = [c.replace(b"\x1b[M", b"") for c in chunks]
    joined = b"".join(clean)
    if b"\x1b[M" in joined:
        return
    x10 = X10Filter()
    assert b"".join(map(x10.feed, clean)) == joined


class Dead(io.StringIO):
    """A terminal that is gone."""

    writes = 0

    def write(self, text: str) -> int:
        self.writes += 1
        raise OSError(5, "Input/output error")


def test_writing_to_a_dead_terminal_is_nothing() -> None:
    dead = Dead()
    file = LenientFile(dead)
    for _ in range(100):
        file.write("x")
        file.flush()
    assert file.dead
    assert dead.writes == 1


def test_without_utf_8_a_cell_stays_a_cell() -> None:
    """`...` in place of `…` moved everything behind it."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="strict")
    text = "emoji…│ 3 ± 1 → ● ✓ ▸ 한"
    LenientFile(stream).write(text)
    stream.flush()
    shown = stream.buffer.getvalue().decode()
    assert len(shown) == len(text) + 1, "a wide character takes two cells"
    assert shown.startswith("emoji~| 3 ~ 1 > * + >")


def test_who_is_woken_finds_the_event_set() -> None:
    """The other way round, the input thread went back to a read that nobody ended."""
    for _ in range(300):
        event, seen = WakingEvent(), []

        def watch(event: WakingEvent = event, seen: list[bool] = seen) -> None:
            select.select([event], [], [])
            seen.append(event.is_set())

        thread = threading.Thread(target=watch)
        thread.start()
        event.set()
        thread.join(10)
        assert seen == [True]
        event.clear()
        os.close(event._read)
        os.close(event._write)
