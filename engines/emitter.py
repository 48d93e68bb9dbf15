"""Emitter: sends an engine's messages as JSON lines on a pipe, without blocking training.

Step windows are coalesced; when the pipe is full they are merged further and at last dropped and
counted. All other messages wait in a queue and always arrive.
"""

from __future__ import annotations

import hashlib
import os
import select
import threading
import time
from collections import deque
from pathlib import Path
from typing import Final

from engines import messages, protocol
from engines.messages import Message, PhaseName, Step
from engines.protocol import MAX_LINE

STEP_INTERVAL_SECONDS: Final = 0.1
"""Shortest time between step windows, closer ones are merged: about 10 lines or 2 KB a second."""

MAX_STEPS_PER_WINDOW: Final = 1000
"""1,000 durations of ~22 characters keep a line far below the 64 KiB of the protocol."""

CLOSE_SECONDS: Final = 10.0
"""Seconds that `close` waits for a warden that does not read."""


class EngineError(Exception):
    """A user error: one sentence that names the setting or file, and the remedy."""


def first_line(error: BaseException) -> str:
    """The first line of an error's message, up to 200 characters, for a message of one line."""
    return (str(error).splitlines() or [""])[0][:200]


class Stopped(Exception):  # noqa: N818 - not an error, but a request
    """The engine was asked to stop and has saved its state."""


def describe_artifact(path: Path, run_dir: Path, role: str = "predictions") -> messages.Artifact:
    """What the journal is told of a finished file, which is on the disk then."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return messages.Artifact(
        path=path.relative_to(run_dir).as_posix(),
        sha256=digest,
        size=path.stat().st_size,
        role=role,
    )


class Emitter:
    """Sends messages. Without a file descriptor it collects them in `sent` (tests, benchmarks)."""

    def __init__(self, fd: int | None = None, t0: float | None = None) -> None:
        self._fd = fd
        self._t0 = time.monotonic() if t0 is None else t0
        self._lock = threading.Lock()
        self._queue: deque[bytes] = deque()
        self._step: Step | None = None
        self._step_sent = float("-inf")
        self.sent: list[Message] = []
        self.dropped = 0
        self.stop_requested = False
        if fd is not None:
            os.set_blocking(fd, False)

    def now(self) -> float:
        """Seconds since the attempt's start."""
        return time.monotonic() - self._t0

    def send(self, message: Message) -> None:
        """Send one message; its `t` is filled in when it is 0."""
        if message.t == 0.0:
            message = message.model_copy(update={"t": self.now()})
        with self._lock:
            if isinstance(message, Step):
                self._merge_step(message)
                return
            self._flush_step()
            self._post(message)

    def check_stop(self) -> None:
        """Raise `Stopped` if the engine was asked to stop."""
        if self.stop_requested:
            raise Stopped

    def phase(self, name: PhaseName, detail: str = "") -> None:
        """Begin a phase, which ends the previous one."""
        self.send(messages.Phase(name=name, detail=detail))

    def progress(self, done: int, total: int, unit: str = "items") -> None:
        """Send the progress of the current phase."""
        self.send(messages.Progress(done=done, total=total, unit=unit))

    def notice(self, code: str, text: str, count: int = 1) -> None:
        """Send a notice for the user; notices are counted by their code."""
        self.send(messages.Notice(code=code, text=text, count=count))

    def close(self, seconds: float = CLOSE_SECONDS) -> bool:
        """Write the queued messages, waiting for the reader if needed; True if all were written."""
        deadline = time.monotonic() + seconds
        with self._lock:
            self._flush_step()
            while self._fd is not None and not self._drain():
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    break
                select.select([], [self._fd], [], min(remaining, 0.5))
            return not self._queue

    def _merge_step(self, step: Step) -> None:
        waiting = self._step
        if waiting is not None:
            if not are_mergeable(waiting, step):
                self._flush_step()
            else:
                step = merge_steps(waiting, step)
        self._step = step
        now = time.monotonic()
        if now - self._step_sent >= STEP_INTERVAL_SECONDS and self._drain():
            self._step_sent = now
            self._flush_step()

    def _flush_step(self) -> None:
        if self._step is not None:
            step, self._step = self._step, None
            self._post(step)

    def _post(self, message: Message) -> None:
        if self._fd is None:
            self.sent.append(message)
            return
        drained = self._drain()
        if not drained and getattr(message, "kind", "") in protocol.DROPPABLE:
            self.dropped += 1
            return
        self._queue.append(encode_within_limit(message))
        self._drain()

    def _drain(self) -> bool:
        """Write queued bytes until the pipe is full; True when nothing is left."""
        while self._queue and self._fd is not None:
            line = self._queue[0]
            try:
                written = os.write(self._fd, line)
            except BlockingIOError:
                return False
            except OSError:  # the warden is gone; the life pipe ends this process soon
                self.stop_requested = True
                self._queue.clear()
                return True
            if written < len(line):
                self._queue[0] = line[written:]
                return False
            self._queue.popleft()
        return True


PARTS: Final = ("data_wait", "data_stall", "transfer", "forward", "backward", "optimizer")
"""Fields of a step window that are summed when two are merged."""


def are_mergeable(first: Step, second: Step) -> bool:
    """Whether two windows may be merged: equal in warm-up and metrics, not too long together."""
    return (
        first.warmup == second.warmup
        and first.metrics.keys() == second.metrics.keys()
        and first.samples + second.samples > 0
        and first.count + second.count <= MAX_STEPS_PER_WINDOW
    )


def merge_steps(first: Step, second: Step) -> Step:
    """Merge two consecutive windows: sums of sums, sample-weighted means of means."""
    count, samples = first.count + second.count, first.samples + second.samples

    def mean(a: float, b: float) -> float:
        return (a * first.samples + b * second.samples) / samples

    def total(name: str) -> float | None:
        a, b = getattr(first, name), getattr(second, name)
        return None if a is None or b is None else a + b

    norm: float | None = None
    if first.grad_norm is not None and second.grad_norm is not None:
        norm = mean(first.grad_norm, second.grad_norm)
    return second.model_copy(
        update={
            "count": count,
            "samples": samples,
            "seconds": first.seconds + second.seconds,
            "step_seconds": first.step_seconds + second.step_seconds,
            "loss": mean(first.loss, second.loss),
            "grad_norm": norm,
            "skipped_steps": first.skipped_steps + second.skipped_steps,
            "metrics": {k: mean(first.metrics[k], v) for k, v in second.metrics.items()},
            **{name: total(name) for name in PARTS},
        }
    )


def encode_within_limit(message: Message) -> bytes:
    """Encode a message as one line of at most MAX_LINE bytes, shortening long texts.

    Raises:
        ValueError: it cannot be shortened enough.
    """
    line = protocol.encode(message)
    if len(line) <= MAX_LINE:
        return line
    cuts = {
        name: value[:1024] + "…"
        for name, value in message.model_dump().items()
        if isinstance(value, str) and len(value) > 1024
    }
    if isinstance(message, messages.Failed):
        cuts["traceback"] = "…" + message.traceback[-4096:]
    line = protocol.encode(message.model_copy(update=cuts))
    if len(line) > MAX_LINE:
        raise ValueError(f"a message of {len(line)} bytes does not fit the protocol")
    return line
