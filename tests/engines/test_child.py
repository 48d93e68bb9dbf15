"""The engine's process: every ending has a last message and the right exit code."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from engines import child, protocol
from engines.emitter import EngineError
from engines.messages import Message

DEADLINE_SECONDS = 20


def spec(**changes) -> dict:
    base = {
        "suite": "s", "run_id": "01-probe", "engine": "probe", "task": "probe", "subset": "none",
        "model": "none", "params": {"steps": 3, "rounds": 1}, "cache_root": "/nonexistent",
    }  # fmt: skip
    return {**base, **changes}


class Engine:
    """A child under test, with its event and life pipes."""

    def __init__(self, run_dir: Path, content: dict | str | None, **environment: str) -> None:
        if content is not None:
            text = content if isinstance(content, str) else json.dumps(content)
            (run_dir / "spec.json").write_text(text)
        self.events, write = os.pipe()
        life, self.life = os.pipe()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "engines.child", str(run_dir)],
            env={
                **os.environ,
                "WORKBENCH_EVENT_FD": str(write),
                "WORKBENCH_LIFE_FD": str(life),
                "WORKBENCH_PARENT": str(os.getpid()),
                "WORKBENCH_T0": str(time.monotonic()),
                **environment,
            },
            pass_fds=(write, life),
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        os.close(write)
        os.close(life)
        self.seen: list[Message] = []
        self._rest = b""

    def read_until(self, kind: str | None) -> list[Message]:
        """Messages up to the first of a kind, or all."""
        while kind is None or not any(getattr(m, "kind", "") == kind for m in self.seen):
            data = os.read(self.events, 1 << 16)
            if not data:
                break
            *whole, self._rest = (self._rest + data).split(b"\n")
            self.seen += [protocol.decode(line) for line in whole]
        return self.seen

    def end(self) -> tuple[int, list[Message]]:
        """Exit code and all messages."""
        messages = self.read_until(None)
        return self.process.wait(DEADLINE_SECONDS), messages

    def close(self) -> None:
        """Leave nothing behind."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
        os.close(self.events)
        self.hang_up()

    def hang_up(self) -> None:
        """Close the life pipe, as a dying warden would."""
        if self.life >= 0:
            os.close(self.life)
            self.life = -1


@pytest.fixture
def start(tmp_path):
    engines: list[Engine] = []

    def make(content: dict | str | None, **environment: str) -> Engine:
        engines.append(Engine(tmp_path, content, **environment))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()


def test_a_probe_runs_to_done(start):
    code, messages = start(spec()).end()
    kinds = [m.kind for m in messages]
    assert code == 0
    assert kinds[0] == "hello"
    assert kinds[-1] == "done"
    assert {"plan", "step", "timing", "metric"} <= set(kinds)
    assert sum(m.count for m in messages if m.kind == "step") == 5
    timing = next(m for m in messages if m.kind == "timing")
    assert timing.epoch_steps == 3
    assert timing.samples_per_second == pytest.approx(3 / timing.epoch_wall_seconds)
    times = [m.t for m in messages]
    assert times == sorted(times)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "spec.json: cannot be read"),
        ("{", "spec.json"),
        (spec(engine="prob"), "did you mean 'probe'"),
        (spec(protocol=99), "protocol 99"),
        (spec(surplus=1), "surplus"),
    ],
)
def test_mistakes_are_one_sentence(start, content, words):
    code, messages = start(content).end()
    assert code == child.EXIT_FAILED
    assert messages[-1].kind == "failed"
    assert messages[-1].hint == "usage"
    assert words in messages[-1].error
    assert "\n" not in messages[-1].error
    assert not messages[-1].traceback


def test_a_wrong_setting_is_a_failure_with_a_traceback(start):
    engine = start(spec(params={"steps": -1}))
    code, messages = engine.end()
    assert code == child.EXIT_FAILED
    assert messages[-1].hint == "failed"
    assert "ValidationError" in messages[-1].traceback


def test_sigterm_ends_after_the_step_at_hand(start):
    engine = start(spec(params={"steps": 100_000, "rounds": 1}))
    engine.read_until("step")
    engine.process.send_signal(signal.SIGTERM)
    code, messages = engine.end()
    assert code == child.EXIT_STOPPED
    assert messages[-1].kind == "failed"
    assert messages[-1].hint == "stopped"


def test_a_closed_life_pipe_ends_it_at_once(start):
    engine = start(spec(params={"steps": 100_000, "delay_seconds": 60}))
    engine.read_until("step")  # now it sleeps for a minute
    engine.hang_up()
    assert engine.process.wait(5) in (-signal.SIGKILL, child.EXIT_STOPPED)


def test_a_parent_that_died_before_is_noticed(start):
    code, messages = start(spec(), WORKBENCH_PARENT="1").end()
    assert code == child.EXIT_STOPPED
    assert messages == []


def test_an_error_of_another_class_of_the_same_name_is_none_of_torch():
    for module, hint in (("torch", "oom-cuda"), ("elsewhere", "failed")):
        kind = type("OutOfMemoryError", (RuntimeError,), {"__module__": module})
        assert child.classify(kind("x")) == hint


def test_a_spec_is_read_as_written(tmp_path):
    (tmp_path / "spec.json").write_text(json.dumps(spec(seed=7)))
    assert child.read_spec(tmp_path).seed == 7
    with pytest.raises(EngineError, match="cannot be read"):
        child.read_spec(tmp_path / "elsewhere")
