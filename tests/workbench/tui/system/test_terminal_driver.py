"""The terminal driver: filters of bytes, and the order of keys."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import select
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual.events import Key

from workbench.tui.system import idle_loop, terminal_driver
from workbench.tui.system.terminal_driver import (
    LenientFile,
    TerminalDriver,
    WakingEvent,
    X10Filter,
)


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


class Typing(TerminalDriver):
    """A driver without a terminal, whose keys have effects that take some rounds of the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, rounds: int) -> None:
        self._loop = self.loop = loop
        self._rounds = rounds
        self._leaving = WakingEvent()
        self.log: list[str] = []

    def process_message(self, event: Key) -> None:
        asyncio.run_coroutine_threadsafe(self._work(event.key), self._loop)

    async def _work(self, key: str) -> None:
        for _ in range(self._rounds):
            self.log += key
            await asyncio.sleep(0)


@pytest.fixture
def typing(monkeypatch: pytest.MonkeyPatch) -> Iterator[Typing]:
    """A driver that waits long, with the loop of the app."""
    monkeypatch.setattr(terminal_driver, "KEY_SECONDS", 90.0)
    with contextlib.closing(idle_loop.make_loop()) as loop:
        yield Typing(loop, rounds=20)


KEYS = [Key(key, key) for key in "abc"]


def test_a_key_typed_ahead_waits_for_the_effect_of_the_one_before(typing: Typing) -> None:
    loop = typing.loop
    loop.run_until_complete(loop.run_in_executor(None, typing._hand_on, KEYS))
    assert typing.log == sorted("abc" * 20)


def test_a_loop_that_ends_the_input_thread_does_not_wait_for_keys(typing: Typing) -> None:
    thread = threading.Thread(target=typing._hand_on, args=(KEYS,))

    async def leave() -> bool:
        thread.start()
        typing._leaving.set()
        thread.join(60)
        has_ended = not thread.is_alive()
        while len(typing.log) < 60:  # the keys come all the same
            await asyncio.sleep(0)
        return has_ended

    assert typing.loop.run_until_complete(leave())
