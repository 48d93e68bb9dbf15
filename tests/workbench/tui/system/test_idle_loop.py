"""The loop that says when it is idle, as a reader in another thread sees it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading

from workbench.tui.system import idle_loop


def test_a_reader_waits_while_the_loop_is_at_work(monkeypatch) -> None:
    monkeypatch.setattr(idle_loop, "LONGEST_WAIT", 60.0)
    passed = threading.Event()
    reader = threading.Thread(target=lambda: (idle_loop.give_way(), passed.set()))

    async def work() -> bool:
        await asyncio.sleep(0.001)  # the loop has waited and was woken
        reader.start()
        before = passed.wait(0.05)
        await asyncio.to_thread(passed.wait, 60.0)
        return before

    with contextlib.closing(idle_loop.make_loop()) as loop:
        assert not loop.run_until_complete(work())
    reader.join()
    idle_loop.give_way()  # without a loop there is nothing to wait for


def test_what_lives_before_a_long_reading_is_left_out_of_the_search_for_garbage() -> None:
    idle_loop.freeze_objects.cache_clear()
    gc.unfreeze()
    idle_loop.freeze_objects()
    frozen = gc.get_freeze_count()
    assert frozen > 10_000, "most of it are objects of libraries"
    more = [[] for _ in range(100)]
    idle_loop.freeze_objects()  # once: what a closed screen leaves is to be found
    assert gc.get_freeze_count() <= frozen
    assert len(more) == 100
