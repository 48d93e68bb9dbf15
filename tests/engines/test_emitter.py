"""The emitter: nothing lost that may not be, nothing blocks, one line fits the protocol."""

import contextlib
import json
import math
import os
import threading
import time

import pytest

from engines import emitter, messages, protocol
from engines.emitter import Emitter, Stopped


def step(number: int, seconds: float = 0.01, **more) -> messages.Step:
    fields = {"count": 1, "samples": 8, "step_seconds": (seconds,), "loss": 1.0, "lr": 0.1}
    return messages.Step(step=number, seconds=seconds, **{**fields, **more})


def lines(fd: int) -> list[dict]:
    os.set_blocking(fd, False)
    data = b""
    while True:
        try:
            chunk = os.read(fd, 1 << 20)
        except BlockingIOError:
            break
        if not chunk:
            break
        data += chunk
    return [json.loads(line) for line in data.splitlines()]


@pytest.fixture
def pipe():
    read, write = os.pipe()
    yield read, write
    for fd in (read, write):
        with contextlib.suppress(OSError):  # a test may have closed it
            os.close(fd)


def test_close_steps_become_one_window_whose_sums_are_theirs(pipe):
    read, write = pipe
    emit = Emitter(write)
    for number in range(1, 101):
        emit.send(step(number, seconds=number / 1000, loss=float(number), metrics={"r@1": 0.5}))
    emit.send(messages.Done())
    sent = lines(read)
    windows = [m for m in sent if m["kind"] == "step"]
    assert len(windows) <= 3, "100 windows within milliseconds are two or three lines"
    assert sum(w["count"] for w in windows) == 100
    assert sum(w["samples"] for w in windows) == 800
    assert [s for w in windows for s in w["step_seconds"]] == [n / 1000 for n in range(1, 101)]
    assert sum(w["loss"] * w["count"] for w in windows) == pytest.approx(sum(range(1, 101)))
    assert sent[-1]["kind"] == "done", "a window that waits goes out before what comes later"


def test_merge_weighs_means_by_samples_and_keeps_unknown_unknown():
    first = step(2, count=2, samples=20, loss=1.0, data_wait=0.5, grad_norm=4.0, metrics={"a": 1.0})
    second = step(
        5, count=3, samples=5, loss=2.0, data_wait=None, grad_norm=None, metrics={"a": 3.0}
    )
    both = emitter.merge_steps(first, second)
    assert (both.step, both.count, both.samples) == (5, 5, 25)
    assert both.loss == pytest.approx((20 * 1 + 5 * 2) / 25)
    assert both.metrics["a"] == pytest.approx((20 * 1 + 5 * 3) / 25)
    assert both.data_wait is None
    assert both.grad_norm is None


def test_warm_up_and_timed_steps_are_never_one_window(pipe):
    read, write = pipe
    emit = Emitter(write)
    emit.send(step(1, warmup=True))
    emit.send(step(2, warmup=True))
    emit.send(step(3, warmup=False))
    emit.close()
    assert [(w["step"], w["warmup"]) for w in lines(read)][-1] == (3, False)


def test_full_pipe_drops_progress_and_keeps_state(pipe):
    read, write = pipe
    emit = Emitter(write)
    for number in range(20_000):
        emit.progress(number, 20_000)
    emit.notice("images-skipped", "x.png")
    emit.send(messages.Failed(error="no", hint="failed"))
    assert emit.dropped > 0
    received: list[dict] = []
    reader = threading.Thread(target=lambda: received.extend(lines_until_failed(read)))
    reader.start()
    assert emit.close(5.0)
    reader.join(5)
    kinds = [m["kind"] for m in received]
    assert kinds[-2:] == ["notice", "failed"]
    assert kinds.count("progress") + emit.dropped == 20_000


def lines_until_failed(fd: int) -> list[dict]:
    os.set_blocking(fd, True)
    data = b""
    while b'"failed"' not in data or not data.endswith(b"\n"):
        data += os.read(fd, 1 << 16)
    return [json.loads(line) for line in data.splitlines()]


def test_sending_never_waits_for_a_reader(pipe):
    _, write = pipe
    emit = Emitter(write)
    start = time.monotonic()
    for number in range(5000):
        emit.progress(number, 5000)
    assert time.monotonic() - start < 2.0


def test_close_gives_up_in_time_and_says_so(pipe):
    _, write = pipe
    emit = Emitter(write)
    for _ in range(200):
        emit.notice("x", "y" * 1000)  # more than the pipe holds, and none of it may be dropped
    start = time.monotonic()
    assert not emit.close(0.2)
    assert time.monotonic() - start < 2.0


def test_a_warden_that_is_gone_asks_the_engine_to_stop(pipe):
    read, write = pipe
    os.close(read)
    emit = Emitter(write)
    emit.notice("x", "y")
    assert emit.stop_requested
    with pytest.raises(Stopped):
        emit.check_stop()


def test_long_messages_are_cut_to_the_protocol():
    failed = messages.Failed(error="e" * 100_000, traceback="t" * 1_000_000 + "the end")
    line = emitter.encode_within_limit(failed)
    assert len(line) <= protocol.MAX_LINE
    assert protocol.decode(line).traceback.endswith("the end")
    many = tuple(1 / 3 for _ in range(emitter.MAX_STEPS_PER_WINDOW))
    assert len(emitter.encode_within_limit(step(1, step_seconds=many))) <= protocol.MAX_LINE


def test_a_loss_that_is_no_number_arrives_as_such(pipe):
    read, write = pipe
    Emitter(write).send(step(1, loss=math.nan))
    assert lines(read)[0]["loss"] == "NaN"


def test_times_count_from_the_attempts_start():
    emit = Emitter(t0=time.monotonic() - 100)
    emit.phase("train")
    assert 100 <= emit.sent[0].t < 110
