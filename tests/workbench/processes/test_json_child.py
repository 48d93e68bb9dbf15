"""Messages of a child process come as they are printed; the child does not outlive its reader."""

from __future__ import annotations

import sys
import time

import pytest

from workbench.processes.json_child import run_child

TALK = (
    "print('{\"n\": 1}'); print('no JSON'); print('[2]'); print('{\"n\": 3}'); raise SystemExit(7)"
)


def test_messages_come_in_order_and_other_lines_are_passed_over() -> None:
    messages: list[object] = []
    assert run_child([sys.executable, "-c", TALK], messages.append) == 7
    assert messages == [{"n": 1}, {"n": 3}]


def test_a_child_is_terminated_when_its_reader_fails() -> None:
    start = time.monotonic()

    def fail(message: object) -> None:
        raise ValueError(message)

    code = "import time; print('{\"n\": 1}', flush=True); time.sleep(60)"
    with pytest.raises(ValueError, match="'n': 1"):
        run_child([sys.executable, "-c", code], fail)
    assert time.monotonic() - start < 30
