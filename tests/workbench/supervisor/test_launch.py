"""Starting a warden, and burying one that was killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from engines.protocol import RunSpec
from results.records import store
from tests.fixtures.wardens import Sandbox, end_of, entries, until
from workbench.planning import plan
from workbench.processes import device_locks
from workbench.suites import control, suite, suite_reader, warden_file
from workbench.suites.control import Command
from workbench.supervisor import launch, recovery


@pytest.fixture
def sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    monkeypatch.setenv("WORKBENCH_LOCKS", str(tmp_path))
    monkeypatch.setenv("WORKBENCH_GRACE", "1")
    with Sandbox(tmp_path) as sandbox:
        yield sandbox


def probe(sandbox: Sandbox, steps: int = 3) -> Path:
    """A suite of the real, smallest engine."""
    asked = plan.SuitePlan(
        name="probe", engines="probe", task="probe", subsets="none", models="none"
    )
    spec = RunSpec(
        suite="",
        run_id="01-probe-none-none",
        engine="probe",
        task="probe",
        subset="none",
        model="none",
        params={"steps": steps, "rounds": 1, "delay_seconds": 0.02},
        cache_root=str(sandbox.root / "cache"),
    )
    return suite.create_suite(sandbox.logs, asked, [spec])


def test_a_detached_warden_runs_the_real_engine(sandbox: Sandbox) -> None:
    folder = probe(sandbox)
    launched = launch.start_warden(folder)
    assert launched.life_fd is None
    warden = warden_file.read_warden(folder)
    assert warden is not None
    assert (warden.pid, os.getsid(warden.pid)) == (launched.pid, launched.pid)
    assert launched.popen.wait(30) == 0
    assert suite_reader.SuiteReader(folder).poll().runs[0].state.cause == "completed"
    counters = end_of(folder).counters
    assert counters.keys() >= {"wall_seconds", "warden_cpu_seconds", "sampler_cpu_seconds"}


def test_a_foreground_warden_stops_when_the_pipe_closes(sandbox: Sandbox) -> None:
    folder = probe(sandbox, steps=100_000)
    launched = launch.start_warden(folder, foreground=True)
    sandbox.until_step(folder)
    launch.close_life_pipe(launched)
    launch.close_life_pipe(launched)
    assert launched.popen.wait(30) == 0
    assert suite_reader.SuiteReader(folder).poll().runs[0].state.cause == "stopped"
    assert end_of(folder).exit_code == 143, "the engine was asked, not killed"


def test_a_launch_that_fails_says_why(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = probe(sandbox)
    monkeypatch.setenv("WORKBENCH_GRACE", "soon")
    with pytest.raises(launch.LaunchError, match="WORKBENCH_GRACE is 'soon'"):
        launch.start_warden(folder)
    assert warden_file.read_warden(folder) is None


def test_a_second_launch_of_a_suite_is_refused(sandbox: Sandbox) -> None:
    folder = probe(sandbox, steps=100_000)
    first = launch.start_warden(folder)
    with pytest.raises(launch.LaunchError, match="has a warden already"):
        launch.start_warden(folder)
    control.send_command(folder, Command(do="stop"))
    assert first.popen.wait(30) == 0


def test_launching_leaks_no_descriptors(sandbox: Sandbox) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    folder = probe(sandbox)
    launched = launch.start_warden(folder, foreground=True)
    launch.close_life_pipe(launched)
    launched.popen.wait(30)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def lost_suite(sandbox: Sandbox, *modes: str, at: int = 0) -> Path:
    """Warden and guard killed while run number `at` was at work."""
    folder = sandbox.suite(*modes)
    guard = sandbox.start(folder)
    reader = suite_reader.SuiteReader(folder)
    until(lambda: reader.poll().runs[at].state.step >= 2, "the run's second step")
    guard.kill()  # with its guard, so that reconcile has something to kill
    os.kill(sandbox.warden_pid(folder), signal.SIGKILL)
    guard.wait()
    until(lambda: not sandbox.warden_pid(folder), "the warden's death")
    return folder


def test_reconcile_buries_a_lost_suite_once(sandbox: Sandbox) -> None:
    folder = lost_suite(sandbox, "polite", "ok")
    assert suite_reader.SuiteReader(folder).poll().warden == "lost"
    assert recovery.recover_dead_suite(folder) == ["01-fake-none-polite"]
    assert end_of(folder).cause == "supervisor-lost"
    record = next(iter(store.read_records(sandbox.logs / "results.jsonl")))
    assert record.exit.cause == "supervisor-lost"
    assert record.steps >= 2
    assert recovery.recover_dead_suite(folder) == []
    view = suite_reader.SuiteReader(folder).poll()
    assert (view.warden, view.runs[1].state.status) == ("lost", "queued")
    assert len(list(store.read_records(sandbox.logs / "results.jsonl"))) == 1


def test_reconcile_waits_for_the_guard_that_still_clears_up(sandbox: Sandbox) -> None:
    folder = lost_suite(sandbox, "polite")
    held = device_locks.lock_file(folder / "warden.lock")
    assert held is not None
    threading.Timer(0.3, os.close, [held]).start()
    assert recovery.recover_dead_suite(folder) == ["01-fake-none-polite"]


def test_reconcile_kills_what_carries_the_token(sandbox: Sandbox) -> None:
    folder = lost_suite(sandbox, "storm")
    recovery.recover_dead_suite(folder)
    until(lambda: len(sandbox.survivors()) <= 2, "token carriers gone", seconds=2)
    for pid in (next((folder / "runs").iterdir()) / "pids").read_text().split():
        if Path(f"/proc/{pid}").exists():  # no token, no parent, no guard: nobody knows it
            os.kill(int(pid), signal.SIGKILL)


def test_reconcile_seals_a_torn_tail_and_completes_a_missing_record(sandbox: Sandbox) -> None:
    folder = lost_suite(sandbox, "ok", "polite", at=1)
    results = sandbox.logs / "results.jsonl"
    results.write_bytes(b"")  # as if the warden had died between the End and the record
    with (sorted((folder / "runs").iterdir())[1] / "events.jsonl").open("ab") as file:
        file.write(b'{"seq":99,"wa')
    assert recovery.recover_dead_suite(folder) == ["01-fake-none-ok", "02-fake-none-polite"]
    assert [r.exit.cause for r in store.read_records(results)] == ["completed", "supervisor-lost"]
    assert entries(folder, 1)[-1].msg.model_dump()["kind"] == "end"


def test_reconcile_leaves_the_living_the_ended_and_the_distant_alone(sandbox: Sandbox) -> None:
    ended, _ = sandbox.run("ok")
    assert recovery.recover_dead_suite(ended) == []
    living = sandbox.suite("polite")
    guard = sandbox.start(living)
    sandbox.until_step(living)
    assert recovery.recover_dead_suite(living) == []
    warden = warden_file.read_warden(living)
    assert warden is not None
    control.send_command(living, Command(do="stop"))
    guard.wait()
    far = sandbox.suite("ok")
    gone = warden.model_copy(update={"host": "elsewhere", "state": "running", "updated_wall": 0})
    warden_file.write_warden(far, gone)
    assert recovery.recover_dead_suite(far) == []
    (far / "warden.json").unlink()


def test_two_undertakers_make_one_record(sandbox: Sandbox) -> None:
    folder = lost_suite(sandbox, "polite")
    script = "import sys; from pathlib import Path; from workbench.supervisor import recovery;"
    script += "print(len(recovery.recover_dead_suite(Path(sys.argv[1]))))"
    both = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(folder)],
            stdout=subprocess.PIPE,
            env=sandbox.environment,
        )
        for _ in range(2)
    ]
    said = sorted(int(process.communicate()[0]) for process in both)
    assert said == [0, 1]
    assert len(list(store.read_records(sandbox.logs / "results.jsonl"))) == 1


def test_secrets_do_not_reach_the_engine_nor_the_files(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CANARY_SECRET", "HF_TOKEN", "WORKBENCH_API_KEY", "AWS_SECRET_ACCESS_KEY"):
        sandbox.environment[name] = "canary-5f1c"
    folder, _ = sandbox.run("show-environment")
    run = next((folder / "runs").iterdir())
    seen = json.loads((run / "environ.json").read_text())
    assert "canary-5f1c" not in seen.values()
    assert seen["PATH"] == os.environ["PATH"]
    for path in sandbox.logs.rglob("*"):
        if path.is_file():
            assert b"canary-5f1c" not in path.read_bytes(), path
    fds = set(json.loads((run / "fds.json").read_text()))
    pipes = {int(seen["WORKBENCH_EVENT_FD"]), int(seen["WORKBENCH_LIFE_FD"])}
    assert len(fds - {0, 1, 2} - pipes) <= 1, "nothing but its pipes, and the listing itself"
