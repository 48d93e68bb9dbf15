"""The whole way with the stdlib engine: command line, warden, engine child, files, table."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from workbench.suites import suite, suite_reader

PROBE = ["-e", "probe", "-d", "none", "-m", "none"]


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Path]:
    """A folder to work in; afterwards nothing that was started from it may be alive."""
    yield tmp_path
    deadline = time.monotonic() + 10
    while (alive := processes_in(tmp_path)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert alive == []


def processes_in(folder: Path) -> list[str]:
    """Command lines of all processes that work in or under the folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").readlink().is_relative_to(folder):
                found.append((process / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found


def environment(here: Path) -> dict[str, str]:
    return {
        "PATH": "/usr/bin:/bin", "HOME": str(here), "LANG": "C.UTF-8", "WORKBENCH_GRACE": "2",
        "WORKBENCH_CACHE": str(here / "cache"), "WORKBENCH_CONFIG": str(here / "config"),
        "WORKBENCH_LOCKS": str(here / "runtime"),
    }  # fmt: skip


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """What a shell starts in the background inherits a deaf ear for Ctrl-C, and so would ours."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def start(here: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "workbench", *words], cwd=here, env=environment(here), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def workbench(here: Path, *words: str) -> subprocess.CompletedProcess[str]:
    with start(here, *words) as process:
        out, err = process.communicate(timeout=90)
    return subprocess.CompletedProcess(words, process.returncode, out, err)


def the_suite(here: Path, *, seconds: float = 20) -> Path:
    """The one suite, once its first engine works."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = suite.list_suites(here / "bench_logs")
        if found and any(r.state.step for r in suite_reader.SuiteReader(found[0]).poll().runs):
            return found[0]
        time.sleep(0.05)
    raise AssertionError("no engine came to work")


def ended(folder: Path, *, seconds: float = 20) -> list[str]:
    """The causes of all runs, once the suite has ended."""
    reader, deadline = suite_reader.SuiteReader(folder), time.monotonic() + seconds
    while not (state := reader.poll()).ended:
        assert time.monotonic() < deadline, "the suite did not end"
        time.sleep(0.05)
    return [r.state.cause for r in state.runs]


def test_headless_run_to_table_and_record(here: Path) -> None:
    words = ["--set", "steps=30", "--set", "warmup_steps=0", "--seed", "1", "--seed", "2"]
    done = workbench(here, "run", *PROBE, *words, "--headless")
    assert done.returncode == 0, done.stderr
    assert "| `none` | 1 |" in done.stdout
    assert "\x1b" not in done.stdout + done.stderr
    assert done.stderr.count("completed") == 2
    rows = (here / "bench_logs/results.jsonl").read_text().splitlines()
    records = [json.loads(row) for row in rows]
    assert [r["exit"]["cause"] for r in records] == ["completed", "completed"]
    assert [r["identity"]["seed"] for r in records] == [1, 2]
    assert all(r["steps"] == 30 for r in records)
    listed = workbench(here, "results", "list", "--json")
    assert [json.loads(x)["identity"]["seed"] for x in listed.stdout.splitlines()] == [1, 2]


def test_the_plan_that_was_kept_repeats_the_run(here: Path) -> None:
    assert workbench(here, "run", *PROBE, "--set", "steps=5", "--headless").returncode == 0
    kept = next((here / "bench_logs").glob("*/plan.toml"))
    assert workbench(here, "run", str(kept), "--headless").returncode == 0
    first, second = (s / "runs/01-probe-none-none/spec.json" for s in
                     sorted(suite.list_suites(here / "bench_logs")))  # fmt: skip
    one, two = json.loads(first.read_text()), json.loads(second.read_text())
    assert one.pop("suite") != two.pop("suite")
    assert one == two


def test_json_begins_with_launch_and_ends_with_done(here: Path) -> None:
    done = workbench(here, "run", *PROBE, "--set", "steps=5", "--json")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert rows[0]["kind"] == "launch"
    assert rows[-1] == {"kind": "done", "suite": rows[0]["suite"], "exit": 0}
    assert [r["kind"] for r in rows].count("record") == 1


def test_detach_attach_ps_and_stop(here: Path) -> None:
    done = workbench(here, "run", *PROBE, "--set", "steps=100000", "--set", "delay_seconds=0.01",
                     "--detach")  # fmt: skip
    assert done.returncode == 0, done.stderr
    name = done.stdout.strip()
    folder = the_suite(here)
    assert folder.name == name
    assert name in workbench(here, "ps").stdout
    watcher = start(here, "attach", name)
    assert select.select([watcher.stdout, watcher.stderr], [], [], 20)[0], "its first words"
    watcher.send_signal(2)  # Ctrl-C only detaches
    assert watcher.wait(timeout=180) == 0
    watcher.communicate()
    assert not suite_reader.SuiteReader(folder).poll().ended
    stopped = workbench(here, "stop", name)
    assert stopped.returncode == 0, stopped.stderr
    assert ended(folder) == ["stopped"]
    assert workbench(here, "ps").stdout == ""


@pytest.mark.parametrize("presses", [1, 2])
def test_ctrl_c_stops_the_suite_and_leaves_nothing(here: Path, presses: int) -> None:
    process = start(here, "run", *PROBE, "--set", "steps=100000", "--set", "delay_seconds=0.01",
                    "--headless")  # fmt: skip
    folder = the_suite(here)
    for _ in range(presses):
        process.send_signal(2)
        time.sleep(0.3)
    _, err = process.communicate(timeout=180)
    assert process.returncode == 130, err
    assert ended(folder) == ["stopped"]


@pytest.mark.parametrize("victim", ["engine", "warden", "command"])
def test_kill_9_is_never_completed_and_leaves_nothing(here: Path, victim: str) -> None:
    process = start(here, "run", *PROBE, "--set", "steps=100000", "--set", "delay_seconds=0.01",
                    "--headless")  # fmt: skip
    folder = the_suite(here)
    state = suite_reader.SuiteReader(folder).poll()
    assert state.current is not None
    pids = {"engine": state.current.state.pid, "warden": state.warden_pid, "command": process.pid}
    pid = pids[victim]
    assert pid is not None
    os.kill(pid, 9)
    process.communicate(timeout=180)
    causes = ended(folder)
    if victim == "command":
        assert process.returncode == -9
        assert causes == ["stopped"]
    else:
        assert process.returncode == 1
        assert causes == [{"engine": "killed", "warden": "supervisor-lost"}[victim]]
    rows = (here / "bench_logs/results.jsonl").read_text().splitlines()
    assert [json.loads(r)["exit"]["cause"] for r in rows] == causes
