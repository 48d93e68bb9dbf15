"""Floods, hangs, bombs, lost storage: what a warden bears, and where it ends a run."""

from __future__ import annotations

import signal
from pathlib import Path

from engines.messages import Notice, Step, Unknown
from results.records import store
from tests.fixtures.wardens import Sandbox, end_of, entries, until
from workbench.suites import control, suite_reader
from workbench.suites.control import Command


def test_a_flood_is_thinned_and_counted(sandbox: Sandbox) -> None:
    folder, view = sandbox.run("flood")
    steps = [e.msg for e in entries(folder) if isinstance(e.msg, Step)]
    dropped = end_of(folder).counters["messages_dropped_by_warden"]
    assert view.runs[0].state.cause == "completed"
    assert 200 <= len(steps) < 2_000
    assert len(steps) + dropped == 20_000


def test_a_flood_of_unknown_kinds_is_thinned_too(sandbox: Sandbox) -> None:
    folder, view = sandbox.run("babble")
    kept = sum(isinstance(e.msg, Unknown) for e in entries(folder))
    counters = end_of(folder).counters
    assert view.runs[0].state.cause == "completed"
    assert 200 <= kept < 2_000
    assert kept + counters["messages_dropped_by_warden"] == counters["unknown_messages"] == 20_000


def test_a_log_flood_keeps_its_two_ends(sandbox: Sandbox) -> None:
    folder, _ = sandbox.run("log-flood", log_bytes=3 << 20)
    log = (next((folder / "runs").iterdir()) / "engine.log").read_bytes()
    assert log.startswith(b"line 0\n")
    assert log.endswith(b"the last words\n")
    assert len(log) < 4 << 20
    cut = end_of(folder).counters["engine_log_bytes_cut"]
    assert f"{cut:.0f} bytes cut out here".encode() in log


def test_a_fork_bomb_is_stopped(sandbox: Sandbox) -> None:
    folder, view = sandbox.run("bomb", processes=20)
    assert view.runs[0].state.cause == "protocol-error"
    assert "more than 20 processes" in end_of(folder).detail


def test_a_lost_run_folder_ends_the_run_and_not_the_suite(sandbox: Sandbox) -> None:
    folder = sandbox.suite("lose-folder", "ok")
    sandbox.start(folder)
    view = sandbox.finish(folder)
    assert [r.state.cause for r in view.runs] == ["completed"]
    records = list(store.read_records(sandbox.logs / "results.jsonl"))
    assert [r.exit.cause for r in records] == ["storage-lost", "completed"]
    assert "deleted" in records[0].exit.detail


def test_a_heartbeat_without_progress_is_noted_with_stacks_and_ends_as_hung(
    sandbox: Sandbox,
) -> None:
    folder, view = sandbox.run("wait-for-usr1", stall_seconds=0.7, hang_seconds=2.0)
    assert view.runs[0].state.cause == "hung"
    stalled = [e for e in entries(folder) if isinstance(e.msg, Notice) and e.msg.code == "stalled"]
    assert len(stalled) == 1
    assert stalled[0].src == "warden"
    log = (next((folder / "runs").iterdir()) / "engine.log").read_text()
    assert "most recent call first" in log


def test_an_engine_deaf_to_usr1_is_not_killed_by_the_question(sandbox: Sandbox) -> None:
    folder, view = sandbox.run("hang", stall_seconds=0.5, hang_seconds=1.5)
    assert view.runs[0].state.cause == "hung"
    assert end_of(folder).signal == signal.SIGTERM


def test_an_engine_that_cannot_start_is_a_failed_run(sandbox: Sandbox) -> None:
    folder = sandbox.suite("ok")
    (next((folder / "runs").iterdir()) / "engine.log").mkdir()
    sandbox.start(folder)
    assert sandbox.finish(folder).runs[0].state.cause == "failed"
    assert "engine.log" in end_of(folder).detail


def test_a_warden_knows_no_torch_and_stays_small(sandbox: Sandbox) -> None:
    folder = sandbox.suite("polite")
    sandbox.start(folder)
    sandbox.until_step(folder)
    pid = sandbox.warden_pid(folder)
    maps = Path(f"/proc/{pid}/maps").read_text()
    for heavy in ("torch", "numpy", "pandas", "textual", "pyarrow", "PIL"):
        assert f"/{heavy}/" not in maps
    status = Path(f"/proc/{pid}/status").read_text()
    peak = int(status.partition("VmHWM:")[2].split()[0])
    assert peak < 80 * 1024, f"{peak} KiB"
    control.send_command(folder, Command(do="stop"))
    sandbox.finish(folder)


def test_a_full_disk_ends_the_run_and_leaves_its_record(sandbox: Sandbox) -> None:
    """A real full disk: a small tmpfs in a mount namespace of our own."""
    folder = sandbox.suite("fill-disk", "ok")
    done = sandbox.on_small_disk(folder)
    end = end_of(folder)
    assert end.cause == "storage-lost", done.stderr
    assert "No space" in end.detail or "bytes fit" in end.detail
    steps = [e.msg.step for e in entries(folder) if isinstance(e.msg, Step)]
    assert steps == list(range(1, len(steps) + 1))
    assert len(steps) > 3
    records = list(store.read_records(sandbox.logs / "results.jsonl"))
    assert records[0].exit.cause == "storage-lost"


def test_many_runs_leave_no_descriptor_and_no_zombie(sandbox: Sandbox) -> None:
    folder = sandbox.suite(*["ok"] * 25, "polite")
    sandbox.start(folder)
    until(lambda: suite_reader.SuiteReader(folder).poll().runs[-1].state.step, "the last run")
    pid = sandbox.warden_pid(folder)
    assert len(list(Path(f"/proc/{pid}/fd").iterdir())) < 20
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    assert len(children) == 1, "the engine alone"
    control.send_command(folder, Command(do="stop"))
    causes = [r.state.cause for r in sandbox.finish(folder).runs]
    assert causes == ["completed"] * 25 + ["stopped"]
