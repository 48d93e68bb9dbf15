"""What a suite needs of its surroundings is tried before anything of it is written."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from engines.messages import End
from engines.protocol import Entry
from results.records import store
from tests.fixtures.wardens import Sandbox, until
from workbench import paths
from workbench.suites import control, preflight, state, suite, suite_reader, warden_file
from workbench.supervisor import run_records


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("WORKBENCH_LOCKS", raising=False)
    return tmp_path


def run_probe(here: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "workbench", "run", "-e", "probe", "-d", "none", "-m", "none",
         "--headless", "--set", "steps=3", *words],
        env={"PATH": "/usr/bin:/bin", "HOME": str(here), "WORKBENCH_CACHE": str(here / "cache"),
             "WORKBENCH_LOCKS": str(here / "locks"), **variables},
        cwd=here, capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip


def refused(error: int) -> object:
    def call(*_: object) -> int:
        raise OSError(error, os.strerror(error))

    return call


def test_nothing_is_made_by_looking(places: Path) -> None:
    assert preflight.check_surroundings(places / "logs") == []
    assert list(places.iterdir()) == []


@pytest.mark.parametrize("error", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_named(
    places: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    monkeypatch.setattr(fcntl, "flock", refused(error))
    problems = preflight.check_surroundings(places / "logs")
    assert len(problems) == 3  # log root, cache, device locks
    assert all(os.strerror(error) in problem for problem in problems)
    assert "--log-root" in problems[0]


def test_a_kernel_without_pidfd_is_named(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "pidfd_open", refused(errno.ENOSYS))
    (problem,) = preflight.check_surroundings(places / "logs")
    assert "pidfd_open" in problem
    assert "Linux 5.3" in problem


def test_an_interpreter_that_this_user_may_not_start_is_named(
    monkeypatch: pytest.MonkeyPatch, places: Path
) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert "/nowhere/python: this user" in preflight.check_surroundings(places / "logs")[0]


@pytest.mark.parametrize("kind", ["link", "dangling", "fifo", "folder"])
def test_records_that_cannot_be_appended_refuse_the_suite(places: Path, kind: str) -> None:
    records = places / "bench_logs" / "results.jsonl"
    records.parent.mkdir()
    if kind == "fifo":
        os.mkfifo(records)
    elif kind == "folder":
        records.mkdir()
    else:
        records.symlink_to(places / "elsewhere")
        (places / "elsewhere").write_text("") if kind == "link" else None
    (problem,) = preflight.check_surroundings(records.parent)
    assert "results.jsonl: records cannot be appended" in problem
    if kind == "fifo":
        done = run_probe(places)
        assert (done.returncode, problem in done.stderr) == (2, True)
    assert [p.name for p in records.parent.iterdir()] == ["results.jsonl"]


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"WORKBENCH_GRACE": "abc"}, "WORKBENCH_GRACE is 'abc'; give seconds"),
        ({"WORKBENCH_CACHE": "/dev/null/cache"}, "/dev/null/cache: caches cannot be written"),
        ({"WORKBENCH_LOCKS": "/proc/locks"}, "/proc/locks: devices cannot be locked there"),
        ({"WORKBENCH_LOG_ROOT": "/proc/logs"}, "/proc/logs: suites cannot be written there"),
    ],
)
def test_a_place_that_cannot_be_used_is_one_sentence(
    places: Path, variables: dict[str, str], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That the command ends with 2 then: `tests/attacks/test_odd_environments.py`."""
    monkeypatch.chdir(places)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    (problem,) = preflight.check_surroundings(paths.log_root(None))
    assert sentence in problem
    assert not (places / "bench_logs").exists()


def test_locks_are_found_by_every_session_of_a_user(
    places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From SSH, from cron, in a snap, with another home or cache: on the local disk."""
    root = paths.lock_root()
    for name in ("XDG_RUNTIME_DIR", "XDG_CACHE_HOME", "WORKBENCH_CACHE", "TMPDIR", "HOME"):
        monkeypatch.setenv(name, str(places / name))
        assert paths.lock_root() == root
    assert root == Path(f"/tmp/workbench-{os.geteuid()}/locks")


def test_without_a_boot_id_the_host_names_the_machine(places: Path) -> None:
    assert paths.boot_id(places / "none") == socket.gethostname()
    (places / "empty").write_text("\n")
    assert paths.boot_id(places / "empty") == socket.gethostname()


@pytest.mark.parametrize("target", ["/nonexistent/x", "loop"])
def test_a_log_root_that_is_a_link_to_nothing_is_named(places: Path, target: str) -> None:
    (places / "loop").symlink_to(target)
    (problem,) = preflight.check_surroundings(places / "loop" / "logs")
    assert f"{places}/loop is a link to nothing" in problem
    assert "remove the link, or name another with --log-root" in problem


def test_a_variable_that_nobody_has_expanded_is_named(places: Path) -> None:
    (problem,) = preflight.check_surroundings(places / "$NOWHERE" / "logs")
    assert "no shell has expanded $NOWHERE, and it is not set; set it, or" in problem


def test_a_dev_without_the_null_device_is_named(
    places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "devnull", str(places / "null"))
    (problem,) = preflight.check_surroundings(places / "logs")
    assert problem.startswith(f"{places}/null cannot be used (No such file or directory); make it")


def test_too_few_files_are_named(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (40, 40))
    (problem,) = preflight.check_surroundings(places / "logs")
    assert "only 40 files may be open at once and a run needs 64" in problem
    monkeypatch.setattr(resource, "getrlimit", lambda _: (-1, -1))
    assert preflight.check_surroundings(places / "logs") == []


def test_an_empty_proc_is_named(places: Path) -> None:
    (problem,) = preflight.check_proc(places)
    assert problem == f"{places} is not mounted; mount it with `mount -t proc proc {places}`"
    assert list(preflight.check_proc()) == []


def test_a_runtime_folder_of_another_user_is_no_obstacle(places: Path) -> None:
    assert run_probe(places, XDG_RUNTIME_DIR="/proc/1/nowhere").returncode == 0


def test_the_warden_survives_when_the_locks_go(sandbox: Sandbox) -> None:
    locks = sandbox.root / "locks"
    sandbox.environment["WORKBENCH_LOCKS"] = str(locks)
    folder = sandbox.suite("polite")
    sandbox.start(folder)
    sandbox.until_step(folder)
    shutil.rmtree(locks)
    locks.write_text("no folder can be made here")
    until(lambda: "Not a directory" in sandbox.log(folder), "an error of a beat")
    sandbox.until_step(folder, 1 + suite_reader.SuiteReader(folder).poll().current.state.step)
    control.send_command(folder, control.Command(do="stop"))
    assert sandbox.finish(folder).warden == "ended"
    assert sandbox.log(folder).count("Not a directory") == 1  # said once, not at every beat


def test_a_record_that_cannot_be_appended_is_kept_in_its_run(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = sandbox.suite("ok")
    monkeypatch.setattr(run_records.store, "append_record", refused(errno.EROFS))
    run, spec = suite.read_runs(folder)[0]
    end = Entry(seq=0, wall=1.0, src="warden", msg=End(cause="stopped"))
    with pytest.raises(OSError, match="Read-only"):
        run_records.write_record(folder, run, spec, state.reduce_entries([end]))
    assert (run / "summary.json").is_file()
    assert list(store.read_records(folder.parent / "results.jsonl")) == []


def test_the_reserve_gives_its_room_for_the_record(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its blocks, or its file entry where these have run out."""
    folder = sandbox.suite("ok")
    reserve, written = folder / ".reserve", []

    def write(*arguments: object) -> None:
        if reserve.exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written.append(arguments)

    monkeypatch.setattr(run_records, "write_record", write)
    reserve.write_bytes(b"0")
    run, spec = suite.read_runs(folder)[0]
    run_records.keep_record(folder, run, spec, state.RunState(), reserve)
    assert written == [(folder, run, spec, state.RunState())]


def test_a_warden_file_that_cannot_be_read_is_no_ended_suite(sandbox: Sandbox) -> None:
    folder = sandbox.suite("ok")
    (folder / "warden.json").symlink_to("warden.json")
    with pytest.raises(suite.SuiteError, match="whether it is at work is not known"):
        warden_file.read_warden(folder)
    with pytest.raises(suite.SuiteError):
        suite_reader.SuiteReader(folder).poll()


def test_a_deleted_warden_file_of_a_suite_at_work_is_no_lost_suite(sandbox: Sandbox) -> None:
    folder = sandbox.suite("ok")
    os.utime(folder / "plan.toml", (1, 1))
    assert suite_reader.SuiteReader(folder).poll().warden == "lost"
    with (folder / "warden.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert suite_reader.SuiteReader(folder).poll().warden == "running"
